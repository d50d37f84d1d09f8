// Package faults uses the fault seam of internal/sys in tests: it records system calls, and has
// some of them fail. It does nothing else.
package faults

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

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
