package stack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// After HandOver another stack can open the upper. It finds no whiteout device of the first, and
// keeps its own device when the first is closed.
func TestHandOver(t *testing.T) {
	s := newSite(t, "", "file f\nfile g")
	var own *host.MountNamespace
	place, err := own.PlaceOf("/proc") // a mount that is in sight is not waited for
	must(t, err)
	s.Publish(sys.Self(place))
	must(t, s.dir("").withNames().remove("f"))
	staging := filepath.Join(s.cfg.Work, workName)
	if sharedDevice(t, staging) == "" {
		t.Fatal("the whiteout is no link")
	}
	if other, err := Open(s.cfg); err == nil {
		other.Close()
		t.Fatal("opened before it was handed over")
	}
	must(t, s.HandOver())
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
		t.Errorf("left in the work directory: %v, %v", left, err)
	}
	next := openSite(t, s.cfg)
	must(t, next.dir("").withNames().remove("g"))
	shared := sharedDevice(t, staging)
	s.shut()
	if _, err := os.Lstat(filepath.Join(staging, shared)); err != nil {
		t.Error("the end of the first stack has removed the device of the second:", err)
	}
	next.wantView("both removed", "")
}

// A stack that cannot be written has nothing to hand over.
func TestHandOverReadOnly(t *testing.T) {
	s := newSite(t, "", "file f")
	r, err := Open(Config{Lowers: s.cfg.Lowers, Upper: s.cfg.Upper, ReadOnly: true})
	must(t, err)
	defer r.Close()
	r.Publish(sys.Self(host.Place{}))
	must(t, r.HandOver())
	if other, err := Open(Config{Lowers: s.cfg.Lowers}); err != nil {
		t.Error(err)
	} else {
		other.Close()
	}
	must(t, s.dir("").withNames().remove("f"))
	s.wantView("the stack that writes", "")
}
