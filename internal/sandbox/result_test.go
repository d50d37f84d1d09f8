package sandbox

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What is missing is reported, and the rest is given up nevertheless.
func TestResult(t *testing.T) {
	r := Result{Seccomp: true, Landlock: []string{"tcp", "signals"}, Capabilities: SetOf(0, 3), Missing: []error{unix.ENOSYS, unix.EPERM}}
	want := "seccomp, landlock (tcp, signals), capabilities 0x9, without: function not implemented, operation not permitted"
	if got := r.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
