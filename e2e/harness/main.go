package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/fsx"
)

const (
	envBin    = "FUSE_OVERLAY_BIN"
	envOracle = "FUSE_OVERLAY_ORACLE"
	envCache  = "FUSE_OVERLAY_CACHE"
	envSeed   = "FUSE_OVERLAY_SEED"
	envSeqs   = "FUSE_OVERLAY_SEQS"
	envKeep   = "FUSE_OVERLAY_KEEP"
	envIO     = "FUSE_OVERLAY_IO"       // option io of all mounts that root makes
	envBase   = "FUSE_OVERLAY_E2E_BASE" // set for a child in another mode
	envMode   = "FUSE_OVERLAY_E2E_MODE"
	envBare   = "FUSE_OVERLAY_E2E_BARE"  // set for a child that serves a file system, see serveBare
	envStall  = "FUSE_OVERLAY_E2E_STALL" // likewise, see serveStalling
	envFsx    = "FUSE_OVERLAY_E2E_FSX"   // set for a child that makes operations for package fsx
)

var (
	base    string // folder of this run, reachable by every user
	binPath string // the program under test
	oracle  = os.Getenv(envOracle) == "kernel"
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

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	syscall.Umask(0o022)
	if words := os.Getenv(envBare); words != "" {
		if err := serveBare(words); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		return 0
	}
	if os.Getenv(envFsx) != "" {
		if err := fsx.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		return 0
	}
	if words := os.Getenv(envStall); words != "" {
		if err := serveStalling(words); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		return 0
	}
	if os.Getenv(envMode) != "" {
		base, binPath = os.Getenv(envBase), os.Getenv(envBin)
		if mode(os.Getenv(envMode)) == modePrivate {
			if err := enterPrivate(); err != nil {
				fmt.Fprintln(os.Stderr, "e2e:", err)
				return 1
			}
		}
		return m.Run()
	}
	defer func() {
		if base != "" && os.Getenv(envKeep) == "" {
			removeTree(base)
		}
	}()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(closeEngines(), leaks(), releaseHost()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: leaked:", err)
		code = 1
	}
	if err := races(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	return code
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
	if base, err = os.MkdirTemp("/var/tmp", "fuse-overlay-e2e-"); err != nil {
		return err
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	for _, m := range []mode{modeRoot, modeUserns, modeFusermount, modePrivate} {
		d := filepath.Join(base, string(m))
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
		if m == modeUserns || m == modeFusermount {
			if err := os.Chown(d, plainUser.uid, plainUser.gid); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(prepareForeign(filepath.Join(base, "foreign")), prepareDocuments(), listenForRaces()); err != nil {
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
	binPath = filepath.Join(base, "bin", "fuse-overlay")
	if err := os.Mkdir(filepath.Dir(binPath), 0o755); err != nil {
		return err
	}
	given := os.Getenv(envBin)
	if oracle {
		given = "/bin/false"
	}
	if given != "" {
		// A copy: daemons are known by their executable, and others may run the same binary on this machine.
		return copyFile(given, binPath)
	}
	cmd := exec.Command("go", "build", "-o", binPath, "github.com/fuse-overlay/fuse-overlay/cmd/fuse-overlay")
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
	return plainUser.prepare()
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

// leaks reports mounts and daemons that outlive the tests, and ends them.
func leaks() error {
	var errs []error
	for _, m := range mountTable() {
		if strings.HasPrefix(m.point, base+"/") { // others may mount elsewhere meanwhile
			errs = append(errs, fmt.Errorf("mount %s (%s)", m.point, m.kind))
			_ = syscall.Unmount(m.point, syscall.MNT_DETACH)
		}
	}
	var pids []int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if pids = processesOf(binPath); len(pids) == 0 {
			break
		}
	}
	for _, pid := range pids {
		errs = append(errs, fmt.Errorf("process %d: %s", pid, strings.Join(cmdline(pid), " ")))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return errors.Join(errs...)
}

// removeTree removes a folder of the run, but never through a mount that is still there.
func removeTree(dir string) {
	for _, m := range mountTable() {
		if strings.HasPrefix(m.point, dir+"/") {
			fmt.Fprintf(os.Stderr, "e2e: %s is kept: %s is still mounted\n", dir, m.point)
			return
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}
