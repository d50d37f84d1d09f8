package harness

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The variables of the environment that a run obeys. Package e2e documents those that a user sets.
const (
	EnvCache  = "FUSE_OVERLAY_CACHE"
	EnvSeed   = "FUSE_OVERLAY_SEED"
	EnvSeqs   = "FUSE_OVERLAY_SEQS"
	EnvCuts   = "FUSE_OVERLAY_CUTS"
	EnvIO     = "FUSE_OVERLAY_IO" // option io of all mounts that root makes
	envBin    = "FUSE_OVERLAY_BIN"
	envOracle = "FUSE_OVERLAY_ORACLE"
	envKeep   = "FUSE_OVERLAY_KEEP"
	envRaced  = "FUSE_OVERLAY_RACED"
	envBase   = "FUSE_OVERLAY_E2E_BASE" // RunDir, for a child process in another mode
	envMode   = "FUSE_OVERLAY_E2E_MODE" // the mode of a child process
)

var (
	// RunDir is the folder of this run. Every user can reach it. Main sets it.
	RunDir string
	// Program is the path of the program under test, a copy in RunDir. Main sets it.
	Program string
	// Oracle is true if the kernel's overlayfs is mounted in place of the program.
	Oracle = os.Getenv(envOracle) == "kernel"
)

// tools are the programs that the tests of most packages call, and the Debian package of each.
var tools = map[string]string{
	"apt-get": "apt", "bash": "bash", "busybox": "busybox-static", "chattr": "e2fsprogs", "cp": "coreutils",
	"debootstrap": "debootstrap", "dpkg": "dpkg", "dpkg-deb": "dpkg", "find": "findutils", "flock": "util-linux",
	"fusermount3": "fuse3", "getcap": "libcap2-bin", "getfacl": "acl", "getfattr": "attr", "ldd": "libc-bin",
	"lsattr": "e2fsprogs", "make": "make", "mkfs.btrfs": "btrfs-progs", "mkfs.ext4": "e2fsprogs",
	"mkfs.xfs": "xfsprogs", "mksquashfs": "squashfs-tools", "mount": "mount", "mount.fuse3": "fuse3",
	"mountpoint": "util-linux", "newuidmap": "uidmap", "nsenter": "util-linux", "perl": "perl-base",
	"setcap": "libcap2-bin", "setfacl": "acl", "setfattr": "attr", "setpriv": "util-linux",
	"systemd-analyze": "systemd", "tar": "tar", "unshare": "util-linux", "useradd": "passwd",
}

// Suite is what one package of tests adds to the run.
type Suite struct {
	// Roles are other lives of the test binary. If the environment has a variable of this name, the
	// process calls the function with its value, and ends.
	Roles map[string]func(value string) error
	// Tools are the programs that only this package calls, and the Debian package of each.
	Tools map[string]string
	// Prepare runs before the tests. RunDir exists then.
	Prepare func() error
	// Close runs after the tests, and ends what they share.
	Close func() error
	// LimitFactor multiplies the time limit of a child process of EachMode. 0 is 1.
	LimitFactor int
}

// limitFactor is the LimitFactor of this run's Suite, at least 1.
var limitFactor = 1

// Main runs the tests of a package and ends the process. It fails the run if a tool is missing, if
// the tests leave a mount or a process behind, and if a daemon has reported a data race.
func Main(m *testing.M, s Suite) { os.Exit(run(m, s)) }

func run(m *testing.M, s Suite) int {
	flag.Parse()
	syscall.Umask(0o022)
	limitFactor = max(1, s.LimitFactor)
	for name, role := range s.Roles {
		if value := os.Getenv(name); value != "" {
			return report("", role(value))
		}
	}
	if InChild() {
		return runChild(m)
	}
	if os.Getenv(envRaced) != "" {
		if some, err := selectRaced(); err != nil || !some {
			return report("", err)
		}
	}
	defer func() {
		if RunDir != "" && os.Getenv(envKeep) == "" {
			RemoveTree(RunDir)
		}
	}()
	err := prepare(s.Tools)
	if err == nil && s.Prepare != nil {
		err = s.Prepare()
	}
	if err != nil {
		return report("", err)
	}
	code := m.Run()
	var closed error
	if s.Close != nil {
		closed = s.Close()
	}
	return max(code, report("left behind: ", errors.Join(closed, leaks(), releaseHost())), report("", races()))
}

// runChild runs a test in the process that EachMode has started for it.
func runChild(m *testing.M) int {
	RunDir, Program = os.Getenv(envBase), os.Getenv(envBin)
	if Mode(os.Getenv(envMode)) == ModePrivate {
		if err := enterPrivate(); err != nil {
			return report("", err)
		}
	}
	return m.Run()
}

// report prints an error and returns the exit code.
func report(what string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "e2e: %s%v\n", what, err)
	return 1
}

// prepare finds the tools, the plain user and the program, and makes RunDir.
func prepare(ofSuite map[string]string) error {
	if os.Geteuid() != 0 {
		return errors.New("the tests need root: they mount, and run as other users")
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/local/go/bin"); err != nil {
		return err
	}
	// A daemon that makes a system call that its sandbox refuses ends with a trace in its log.
	if err := os.Setenv("_FUSE_OVERLAY_SANDBOX_TRAP", "1"); err != nil {
		return err
	}
	var missing []string
	for _, some := range []map[string]string{tools, ofSuite} {
		for tool, pkg := range some {
			if _, err := exec.LookPath(tool); err != nil {
				missing = append(missing, tool+" (package "+pkg+")")
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("these programs are missing: %s", strings.Join(missing, ", "))
	}
	if err := prepareHost(); err != nil {
		return err
	}
	if err := prepareRunDir(); err != nil {
		return err
	}
	if err := errors.Join(prepareForeign(filepath.Join(RunDir, "foreign")), listenForRaces()); err != nil {
		return err
	}
	return prepareProgram()
}

// prepareRunDir makes RunDir, with a folder for each mode.
func prepareRunDir() (err error) {
	// Not in TMPDIR: the other users have to reach the folder, and a tmpfs would not do as an upper.
	if RunDir, err = os.MkdirTemp("/var/tmp", "fuse-overlay-e2e-"); err != nil {
		return err
	}
	if err := os.Chmod(RunDir, 0o755); err != nil {
		return err
	}
	for _, m := range []Mode{ModeRoot, ModeUserns, ModeFusermount, ModePrivate} {
		d := filepath.Join(RunDir, string(m))
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
		if m == ModeUserns || m == ModeFusermount {
			if err := os.Chown(d, PlainUser.UID, PlainUser.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareForeign makes a lower that a plain user may read, but does not own.
func prepareForeign(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "theirs")
	if err := os.WriteFile(path, []byte("t"), 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o666)
}

// commandsSuffix follows the path of a program in that of the one with its other commands.
const commandsSuffix = "-commands"

// prepareProgram copies the program, and the one with its other commands, into RunDir, or builds
// them there. Daemons are recognised by their executable, and other runs on this machine may use
// the same binary.
func prepareProgram() error {
	Program = filepath.Join(RunDir, "bin", "fuse-overlay")
	if err := os.Mkdir(filepath.Dir(Program), 0o755); err != nil {
		return err
	}
	given := os.Getenv(envBin)
	switch {
	case Oracle:
		return CopyFile("/bin/false", Program)
	case given == "":
		return buildPrograms("fuse-overlay", "fuse-overlay"+commandsSuffix)
	}
	err := CopyFile(given+commandsSuffix, Program+commandsSuffix)
	if errors.Is(err, os.ErrNotExist) { // that of make races has no other commands
		err = buildPrograms("fuse-overlay" + commandsSuffix)
	}
	return errors.Join(err, CopyFile(given, Program))
}

// buildPrograms builds programs, which are folders of cmd, beside Program.
func buildPrograms(names ...string) error {
	args := []string{"build", "-o", filepath.Dir(Program) + "/"}
	for _, name := range names {
		args = append(args, "github.com/fuse-overlay/fuse-overlay/cmd/"+name)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return nil
}

// EnvNumber is the number in a variable of the environment, or the default if there is none.
func EnvNumber(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}
