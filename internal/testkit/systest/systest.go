// Package systest has what the tests of several rooms need of internal/sys: folders as layers,
// records of system calls, and calls that fail. It decides nothing.
package systest

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// Folder opens an empty folder below path for writing, as the work directory of an upper is. It is
// closed with the test.
func Folder(t *testing.T, path string) *sys.Dir {
	t.Helper()
	testkit.Build(t, path, "dir up\ndir work")
	up, work, err := sys.OpenUpper(filepath.Join(path, "up"), filepath.Join(path, "work"), 0)
	testkit.Must(t, err)
	up.Close()
	t.Cleanup(work.Close)
	return work
}

// Calls runs f and returns the system calls that it makes.
func Calls(f func()) []sys.Op {
	var made []sys.Op
	sys.SetFault(func(op sys.Op) error { made = append(made, op); return nil })
	defer sys.SetFault(nil)
	f()
	return made
}

// Names runs f and returns the names of the system calls that it makes.
func Names(f func()) []string {
	var names []string
	for _, op := range Calls(f) {
		names = append(names, op.Call)
	}
	return names
}

// While runs f. Meanwhile, each call that matches fails with err.
func While(match func(sys.Op) bool, err error, f func()) {
	sys.SetFault(func(op sys.Op) error {
		if match(op) {
			return err
		}
		return nil
	})
	defer sys.SetFault(nil)
	f()
}

// Call matches the calls of one name.
func Call(name string) func(sys.Op) bool { return func(op sys.Op) bool { return op.Call == name } }

// WithoutClones runs f where no mount can be cloned, as for a plain user. Tests that open many
// layers are faster so: to remove a clone, the kernel waits for all its CPUs.
func WithoutClones(f func()) { While(Call("open_tree"), unix.EPERM, f) }
