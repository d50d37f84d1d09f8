package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mode is who mounts, and how.
type mode string

const (
	modeRoot       mode = "root"       // root, mount(2)
	modeUserns     mode = "userns"     // uid 0 of a user namespace that maps subordinate ids, mount(2)
	modeFusermount mode = "fusermount" // a plain user, fusermount3
)

var (
	allModes  = []mode{modeRoot, modeUserns, modeFusermount}
	rootModes = []mode{modeRoot, modeUserns} // uid 0 of its namespace
	onlyRoot  = []mode{modeRoot}
)

// env is the surrounding of one test: how it mounts, and a fresh folder.
type env struct {
	mode mode
	dir  string
	opts []string // given to every mount
}

// passthrough is the option for which the kernel does I/O on the upper's files itself.
const passthrough = "io=passthrough"

// has reports whether all mounts get an option.
func (e *env) has(opt string) bool { return slices.Contains(e.opts, opt) }

// needCached leaves out what holds only where opens cost nothing.
func (e *env) needCached(t *testing.T) {
	t.Helper()
	if e.has(passthrough) {
		t.Skip("with io=passthrough the kernel tells of each open")
	}
}

// writeThrough leaves out the writeback cache, with which the kernel sends GETATTR after each close
// of a file and each removal. It is on by default where the kernel would lose data without it.
func (e *env) writeThrough() {
	if !oracle && !e.has(passthrough) && !slices.ContainsFunc(e.opts, func(opt string) bool { return strings.HasPrefix(opt, "writeback=") }) {
		e.opts = append(e.opts, "writeback=0")
	}
}

// eachIO is eachMode, once for each way the kernel may handle data.
func eachIO(t *testing.T, modes []mode, fn func(t *testing.T, e *env)) {
	t.Helper()
	eachMode(t, modes, func(t *testing.T, e *env) {
		opts := []string{"writeback=0", "writeback=1"}
		if e.mode == modeRoot && !oracle {
			opts = append(opts, passthrough)
		}
		for _, opt := range opts {
			if len(e.opts) > 0 && opt != passthrough {
				continue
			}
			withOption(t, e.mode, opt, fn)
		}
	})
}

// eachPolicy is eachMode, and as root once more with passthrough.
func eachPolicy(t *testing.T, modes []mode, fn func(t *testing.T, e *env)) {
	t.Helper()
	eachMode(t, modes, func(t *testing.T, e *env) {
		if e.mode != modeRoot || oracle || len(e.opts) > 0 {
			fn(t, e)
			return
		}
		for _, opt := range []string{"io=cached", passthrough} {
			withOption(t, e.mode, opt, fn)
		}
	})
}

// withOption runs fn in an environment of its own whose mounts have one option.
func withOption(t *testing.T, m mode, opt string, fn func(t *testing.T, e *env)) {
	t.Helper()
	t.Run(opt, func(t *testing.T) {
		e := newEnv(t, m)
		e.opts = []string{opt}
		fn(t, e)
	})
}

// eachMode runs fn once a mode. Modes other than root run in a second process of this test binary, so that the mount
// and everything that looks at it have the same user and namespaces.
func eachMode(t *testing.T, modes []mode, fn func(t *testing.T, e *env)) {
	t.Helper()
	child := mode(os.Getenv(envMode))
	for _, m := range modes {
		if child != "" && m != child || oracle && m == modeFusermount {
			continue
		}
		t.Run(string(m), func(t *testing.T) {
			if m != modeRoot && child == "" {
				runInMode(t, m)
				return
			}
			fn(t, newEnv(t, m))
		})
	}
}

func newEnv(t *testing.T, m mode) *env {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, strings.TrimPrefix(t.Name(), "Test"))
	dir, err := os.MkdirTemp(filepath.Join(base, string(m)), name+"-")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if os.Getenv(envKeep) == "" {
			removeTree(dir)
		}
	})
	e := &env{mode: m, dir: dir}
	if io := os.Getenv(envIO); io != "" && m == modeRoot {
		e.opts = []string{"io=" + io}
	}
	return e
}

var copySelf = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(base, "e2e.test")
	return path, copyFile(self, path)
})

// copyFile makes an executable copy that every user may read.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

const (
	childLimit   = 4 * time.Minute
	privateLimit = 10 * time.Minute // images are built, which a daemon with the race detector takes its time for
)

// runInMode runs the calling subtest in a child process.
func runInMode(t *testing.T, m mode) {
	t.Helper()
	self, err := copySelf()
	check(t, err)
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	limit := childLimit
	if m == modePrivate {
		limit = privateLimit
	}
	limit *= time.Duration(max(1, envNumber(envFsxOps, fsxOps)/fsxOps)) // make fsx FSX_OPS=...
	args := []string{self, "-test.v", "-test.count=1", "-test.run=" + strings.Join(parts, "/"), "-test.timeout=" + limit.String()}
	switch m {
	case modeUserns:
		args = append([]string{"unshare", "--user", "--mount", "--map-root-user", "--map-auto", "--"}, args...)
	case modePrivate:
		args = append(slices.Clone(privateArgs), args...)
		defer func() {
			if err := removeCgroups(); err != nil {
				t.Error(err)
			}
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), envMode+"="+string(m), envBase+"="+base, envBin+"="+binPath)
	if m == modePrivate {
		// It ends when we are killed. The signal is sent at the end of the thread that starts it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(plainUser.uid), Gid: uint32(plainUser.gid)},
		}
		cmd.Env = append(cmd.Env, "HOME=/home/"+plainUser.name, "USER="+plainUser.name, "TMPDIR="+filepath.Join(base, string(m)))
	}
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case err != nil:
		t.Errorf("as %s: %v\n%s", m, err, text)
	case !strings.Contains(text, "--- PASS: "+parts0(t.Name())):
		t.Errorf("as %s: nothing ran\n%s", m, text)
	default:
		t.Log(text)
	}
}

func parts0(name string) string { return strings.SplitN(name, "/", 2)[0] }
