package harness

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

// Mode is who mounts, and how.
type Mode string

const (
	ModeRoot       Mode = "root"       // root, mount(2)
	ModeUserns     Mode = "userns"     // uid 0 of a user namespace that maps subordinate ids, mount(2)
	ModeFusermount Mode = "fusermount" // a plain user, fusermount3
)

var (
	AllModes  = []Mode{ModeRoot, ModeUserns, ModeFusermount}
	RootModes = []Mode{ModeRoot, ModeUserns} // uid 0 of its namespace
	OnlyRoot  = []Mode{ModeRoot}
)

// Env is the surrounding of one test: how it mounts, and a fresh folder.
type Env struct {
	Mode Mode
	Dir  string
	Opts []string // given to every mount
}

// Passthrough is the option for which the kernel does I/O on the upper's files itself.
const Passthrough = "io=passthrough"

// Has reports whether all mounts get an option.
func (e *Env) Has(opt string) bool { return slices.Contains(e.Opts, opt) }

// NeedCached leaves out what holds only where opens cost nothing.
func (e *Env) NeedCached(t *testing.T) {
	t.Helper()
	if e.Has(Passthrough) {
		t.Skip("with io=passthrough the kernel tells of each open")
	}
}

// WriteThrough leaves out the writeback cache, with which the kernel sends GETATTR after each close
// of a file and each removal. It is on by default where the kernel would lose data without it.
func (e *Env) WriteThrough() {
	if !Oracle && !e.Has(Passthrough) && !slices.ContainsFunc(e.Opts, func(opt string) bool { return strings.HasPrefix(opt, "writeback=") }) {
		e.Opts = append(e.Opts, "writeback=0")
	}
}

// EachIO is eachMode, once for each way the kernel may handle data.
func EachIO(t *testing.T, modes []Mode, fn func(t *testing.T, e *Env)) {
	t.Helper()
	EachMode(t, modes, func(t *testing.T, e *Env) {
		opts := []string{"writeback=0", "writeback=1"}
		if e.Mode == ModeRoot && !Oracle {
			opts = append(opts, Passthrough)
		}
		for _, opt := range opts {
			if len(e.Opts) > 0 && opt != Passthrough {
				continue
			}
			WithOption(t, e.Mode, opt, fn)
		}
	})
}

// EachPolicy is eachMode, and as root once more with passthrough.
func EachPolicy(t *testing.T, modes []Mode, fn func(t *testing.T, e *Env)) {
	t.Helper()
	EachMode(t, modes, func(t *testing.T, e *Env) {
		if e.Mode != ModeRoot || Oracle || len(e.Opts) > 0 {
			fn(t, e)
			return
		}
		for _, opt := range []string{"io=cached", Passthrough} {
			WithOption(t, e.Mode, opt, fn)
		}
	})
}

// WithOption runs fn in an environment of its own whose mounts have one option.
func WithOption(t *testing.T, m Mode, opt string, fn func(t *testing.T, e *Env)) {
	t.Helper()
	t.Run(opt, func(t *testing.T) {
		e := NewEnv(t, m)
		e.Opts = []string{opt}
		fn(t, e)
	})
}

// InChild reports whether this process is one that eachMode has started.
func InChild() bool { return os.Getenv(envMode) != "" }

// EachMode runs fn once a mode. Modes other than root run in a second process of this test binary, so that the mount
// and everything that looks at it have the same user and namespaces.
func EachMode(t *testing.T, modes []Mode, fn func(t *testing.T, e *Env)) {
	t.Helper()
	child := Mode(os.Getenv(envMode))
	for _, m := range modes {
		if child != "" && m != child || Oracle && m == ModeFusermount {
			continue
		}
		t.Run(string(m), func(t *testing.T) {
			if m != ModeRoot && child == "" {
				runInMode(t, m)
				return
			}
			fn(t, NewEnv(t, m))
		})
	}
}

func NewEnv(t *testing.T, m Mode) *Env {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, strings.TrimPrefix(t.Name(), "Test"))
	dir, err := os.MkdirTemp(filepath.Join(RunDir, string(m)), name+"-")
	Check(t, err)
	Check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if os.Getenv(envKeep) == "" {
			RemoveTree(dir)
		}
	})
	e := &Env{Mode: m, Dir: dir}
	if io := os.Getenv(EnvIO); io != "" && m == ModeRoot {
		e.Opts = []string{"io=" + io}
	}
	return e
}

var copySelf = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(RunDir, "e2e.test")
	return path, CopyFile(self, path)
})

// CopyFile makes an executable copy that every user may read.
func CopyFile(from, to string) error {
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
func runInMode(t *testing.T, m Mode) {
	t.Helper()
	self, err := copySelf()
	Check(t, err)
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	limit := childLimit
	if m == modePrivate {
		limit = privateLimit
	}
	limit *= time.Duration(limitFactor)
	args := []string{self, "-test.v", "-test.count=1", "-test.run=" + strings.Join(parts, "/"), "-test.timeout=" + limit.String()}
	switch m {
	case ModeUserns:
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
	cmd.Env = append(os.Environ(), envMode+"="+string(m), envBase+"="+RunDir, envBin+"="+Program)
	if m == modePrivate {
		// It ends when we are killed. The signal is sent at the end of the thread that starts it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(PlainUser.UID), Gid: uint32(PlainUser.GID)},
		}
		cmd.Env = append(cmd.Env, "HOME=/home/"+PlainUser.Name, "USER="+PlainUser.Name, "TMPDIR="+filepath.Join(RunDir, string(m)))
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
