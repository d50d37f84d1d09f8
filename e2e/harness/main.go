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

func EnvNumber(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

const (
	envBin    = "FUSE_OVERLAY_BIN"
	envOracle = "FUSE_OVERLAY_ORACLE"
	EnvCache  = "FUSE_OVERLAY_CACHE"
	EnvSeed   = "FUSE_OVERLAY_SEED"
	EnvSeqs   = "FUSE_OVERLAY_SEQS"
	envKeep   = "FUSE_OVERLAY_KEEP"
	EnvIO     = "FUSE_OVERLAY_IO"       // option io of all mounts that root makes
	envBase   = "FUSE_OVERLAY_E2E_BASE" // set for a child in another mode
	envRaced  = "FUSE_OVERLAY_RACED"    // run only the tests that call Raced
	envMode   = "FUSE_OVERLAY_E2E_MODE"
)

var (
	RunDir  string // folder of this run, reachable by every user
	Program string // the program under test
	Oracle  = os.Getenv(envOracle) == "kernel"
)

// tools are the programs the tests call, and the Debian package of each.
var tools = map[string]string{
	"busybox": "busybox-static", "debootstrap": "debootstrap", "fusermount3": "fuse3", "mount.fuse3": "fuse3",
	"setfacl": "acl", "getfacl": "acl", "unshare": "util-linux", "newuidmap": "uidmap", "lsattr": "e2fsprogs",
	"chattr": "e2fsprogs", "apt-get": "apt", "dpkg-deb": "dpkg", "dpkg": "dpkg", "useradd": "passwd", "ldd": "libc-bin", "bash": "bash",
	"cp": "coreutils", "find": "findutils", "setpriv": "util-linux", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs",
	"setcap": "libcap2-bin", "mksquashfs": "squashfs-tools",
	"getcap": "libcap2-bin", "tar": "tar", "mount": "mount", "flock": "util-linux", "perl": "perl-base",
	"make": "make", "mountpoint": "util-linux", "systemd-analyze": "systemd",
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "dockerd": "docker.io", "/usr/bin/docker": "docker.io",
	"podman": "podman", "buildah": "buildah", "crun": "crun", "conmon": "conmon", "nsenter": "util-linux",
}

// Suite is what a package of tests adds to a run.
type Suite struct {
	// Roles are other lives of the test binary, by the environment variable that starts it as one. The function gets its value.
	Roles map[string]func(value string) error
	// Prepare runs before the tests, when RunDir is there.
	Prepare func() error
	// Close ends what the tests of the package share.
	Close func() error
	// LimitFactor multiplies the time that a child process of EachMode may take; 0 is 1.
	LimitFactor int
}

// limitFactor is that of the suite that runs.
var limitFactor = 1

// Main runs the tests of a package, and ends the process. It is the body of TestMain.
func Main(m *testing.M, s Suite) { os.Exit(run(m, s)) }

func run(m *testing.M, s Suite) int {
	flag.Parse()
	syscall.Umask(0o022)
	limitFactor = max(1, s.LimitFactor)
	for name, serve := range s.Roles {
		if value := os.Getenv(name); value != "" {
			return report("", serve(value))
		}
	}
	if os.Getenv(envMode) != "" {
		RunDir, Program = os.Getenv(envBase), os.Getenv(envBin)
		if Mode(os.Getenv(envMode)) == modePrivate {
			if err := enterPrivate(); err != nil {
				return report("", err)
			}
		}
		return m.Run()
	}
	if os.Getenv(envRaced) != "" {
		some, err := selectRaced()
		if err != nil || !some {
			return report("", err)
		}
	}
	defer func() {
		if RunDir != "" && os.Getenv(envKeep) == "" {
			RemoveTree(RunDir)
		}
	}()
	err := prepare()
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
	return max(code, report("leaked: ", errors.Join(closed, leaks(), releaseHost())), report("", races()))
}

// report prints an error, and returns the exit code.
func report(what string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "e2e: %s%v\n", what, err)
	return 1
}

// prepare finds the tools, the user and the binary, and makes the folder of the run.
func prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root: it mounts, and becomes other users")
	}
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/local/go/bin")
	var missing []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool+" (package "+pkg+")")
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("needed programs are missing: %s", strings.Join(missing, ", "))
	}
	if err := prepareHost(); err != nil {
		return err
	}
	// Not in the TMPDIR of go test: the other users must be able to reach it, and a tmpfs would not do as an upper.
	var err error
	if RunDir, err = os.MkdirTemp("/var/tmp", "fuse-overlay-e2e-"); err != nil {
		return err
	}
	if err := os.Chmod(RunDir, 0o755); err != nil {
		return err
	}
	for _, m := range []Mode{ModeRoot, ModeUserns, ModeFusermount, modePrivate} {
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
	if err := errors.Join(prepareForeign(filepath.Join(RunDir, "foreign")), listenForRaces()); err != nil {
		return err
	}
	return prepareBinary()
}

// prepareForeign makes a lower that a plain user may read and has no right to.
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

func prepareBinary() error {
	Program = filepath.Join(RunDir, "bin", "fuse-overlay")
	if err := os.Mkdir(filepath.Dir(Program), 0o755); err != nil {
		return err
	}
	given := os.Getenv(envBin)
	if Oracle {
		given = "/bin/false"
	}
	if given != "" {
		// A copy: daemons are known by their executable, and others may run the same binary on this machine.
		return CopyFile(given, Program)
	}
	cmd := exec.Command("go", "build", "-o", Program, "github.com/fuse-overlay/fuse-overlay/cmd/fuse-overlay")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return nil
}

// controlPoint is where the FUSE control file system belongs.
const controlPoint = "/sys/fs/fuse/connections"

// controlIsOurs: prepareHost has mounted it.
var controlIsOurs bool

// prepareHost makes what a fresh machine may lack: the plain user with its subordinate ids, /dev/fuse for everybody,
// the FUSE control file system (to abort a mount that hangs).
func prepareHost() error {
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		return err
	}
	if _, ok := mountedType(controlPoint); !ok {
		if err := syscall.Mount("fusectl", controlPoint, "fusectl", 0, ""); err != nil {
			return fmt.Errorf("mounting fusectl: %w", err)
		}
		controlIsOurs = true
	}
	// Ubuntu and old Debian kernels keep user namespaces from plain users.
	for name, value := range map[string]string{"apparmor_restrict_unprivileged_userns": "0", "unprivileged_userns_clone": "1"} {
		if err := os.WriteFile("/proc/sys/kernel/"+name, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return PlainUser.prepare()
}

// releaseHost unmounts what prepareHost has mounted, and reports it if it stays.
func releaseHost() error {
	if !controlIsOurs {
		return nil
	}
	if err := syscall.Unmount(controlPoint, 0); err != nil {
		return fmt.Errorf("mount %s: %w", controlPoint, err)
	}
	if kind, ok := mountedType(controlPoint); ok {
		return fmt.Errorf("mount %s (%s)", controlPoint, kind)
	}
	return nil
}
