package harness

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Mode is a kind of user that mounts, and the way in which it mounts.
type Mode string

// The modes of EachMode. Package engines also uses ModePrivate.
const (
	ModeRoot       Mode = "root"       // root, mount(2)
	ModeUserns     Mode = "userns"     // uid 0 of a user namespace that maps subordinate ids, mount(2)
	ModeFusermount Mode = "fusermount" // a plain user, fusermount3
)

// Lists of modes.
var (
	AllModes  = []Mode{ModeRoot, ModeUserns, ModeFusermount}
	RootModes = []Mode{ModeRoot, ModeUserns} // uid 0 of its namespace
	OnlyRoot  = []Mode{ModeRoot}
)

// Env is the environment of one test: a mode, and a fresh folder.
type Env struct {
	Mode Mode
	Dir  string
	Opts []string // options of every mount
}

// NewEnv makes an Env. Its folder is removed after the test.
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

// Passthrough is the option under which the kernel reads and writes the upper's files itself.
const Passthrough = "io=passthrough"

// Has reports whether all mounts have an option.
func (e *Env) Has(opt string) bool { return slices.Contains(e.Opts, opt) }

// NeedCached skips a test of what holds only where an open costs no request.
func (e *Env) NeedCached(t *testing.T) {
	t.Helper()
	if e.Has(Passthrough) {
		t.Skip("with io=passthrough the kernel sends a request for each open")
	}
}

// WriteThrough turns the writeback cache off, with which the kernel sends GETATTR after each close
// of a file and each removal. It is on by default where the kernel would lose data without it.
func (e *Env) WriteThrough() {
	chosen := slices.ContainsFunc(e.Opts, func(opt string) bool { return strings.HasPrefix(opt, "writeback=") })
	if !Oracle && !e.Has(Passthrough) && !chosen {
		e.Opts = append(e.Opts, "writeback=0")
	}
}

// NeedDaemon skips a test of the program if the kernel's overlayfs is mounted in its place.
func NeedDaemon(t *testing.T) {
	t.Helper()
	if Oracle {
		t.Skip("the kernel's overlayfs has no daemon")
	}
}

// EachMode runs fn once for each mode. A mode other than root runs in a second process of this test
// binary, so that the mount and all that looks at it have the same user and namespaces.
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

// EachIO is EachMode, once for each way in which this kernel can handle data. That a kernel without
// passthrough refuses the option is tested by TestWhatThisKernelHas of package command.
func EachIO(t *testing.T, modes []Mode, fn func(t *testing.T, e *Env)) {
	t.Helper()
	EachMode(t, modes, func(t *testing.T, e *Env) {
		opts := []string{"writeback=0", "writeback=1"}
		if e.Mode == ModeRoot && !Oracle && KernelHas(t, BackingFiles) {
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

// EachPolicy is EachMode, and as root once more with passthrough if this kernel has it.
func EachPolicy(t *testing.T, modes []Mode, fn func(t *testing.T, e *Env)) {
	t.Helper()
	EachMode(t, modes, func(t *testing.T, e *Env) {
		if e.Mode != ModeRoot || Oracle || len(e.Opts) > 0 || !KernelHas(t, BackingFiles) {
			fn(t, e)
			return
		}
		for _, opt := range []string{"io=cached", Passthrough} {
			WithOption(t, e.Mode, opt, fn)
		}
	})
}

// WithOption runs fn as a subtest, in an Env of its own whose mounts have one option.
func WithOption(t *testing.T, m Mode, opt string, fn func(t *testing.T, e *Env)) {
	t.Helper()
	t.Run(opt, func(t *testing.T) {
		e := NewEnv(t, m)
		e.Opts = []string{opt}
		fn(t, e)
	})
}
