package stack

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// If the mount table shows the holder's mount, lock fails at once and names it. Otherwise lock
// waits: the holder may be about to end.
func TestHolderIsNamed(t *testing.T) {
	s := newSite(t, "", "file f")
	var own *host.MountNamespace
	place, err := own.PlaceOf("/proc")
	must(t, err)
	here := sys.Self(place)
	elsewhere := here
	elsewhere.MountNamespace++
	gone := here // another mount has its device number by now
	gone.Mount++
	for _, c := range []struct {
		holder sys.Holder
		want   string
		waits  bool
	}{
		{here, fmt.Sprintf(`is in use by the mount on "/proc", process %d (EBUSY)`, os.Getpid()), false},
		{gone, fmt.Sprintf("is in use by a mount that the mount table here does not show, process %d (EBUSY)", os.Getpid()), true},
		{elsewhere, fmt.Sprintf("is in use by a mount that the mount table here does not show, process %d (EBUSY)", os.Getpid()), true},
	} {
		s.Publish(c.holder)
		start := time.Now()
		other, err := Open(Config{Lowers: s.cfg.Lowers, Upper: s.cfg.Upper, Work: s.cfg.Work})
		if err == nil {
			other.Close()
			t.Fatal("opened twice")
		}
		if !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if waited := time.Since(start) >= lockWait; waited != c.waits {
			t.Errorf("%s: waited is %v", c.want, waited)
		}
		s.remount() // what was published ends with the mount
	}
}

// An upper that is only read needs no lock and no work directory, and changes nothing.
func TestUpperForReading(t *testing.T) {
	s := newSite(t, "file f \"upper\"", "file f \"lower\"\nfile g")
	s.Publish(sys.Self(host.Place{}))
	before := pathsBelow(t, s.cfg.Upper)
	for what, c := range map[string]Config{
		"asked for":            {Lowers: s.cfg.Lowers, Upper: s.cfg.Upper, ReadOnly: true},
		"beside another mount": {Lowers: s.cfg.Lowers, Upper: s.cfg.Upper, Work: s.cfg.Work + "2", BesideOther: true},
	} {
		r, err := Open(c)
		must(t, err)
		if r.Writable() {
			t.Errorf("%s: it can be written", what)
		}
		root := r.RootDir()
		if top := root.Top(); top != Upper {
			t.Errorf("%s: the topmost layer is %d", what, top)
		}
		if _, err := r.Root(Upper).CreateFile("new", 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: creating in the upper: %v", what, err)
		}
		if warned := len(r.Warnings()) == 1; warned != c.BesideOther {
			t.Errorf("%s: warnings: %q", what, r.Warnings())
		}
		r.Close()
	}
	if after := pathsBelow(t, s.cfg.Upper); len(after) != len(before) {
		t.Errorf("the upper holds %v, before %v", after, before)
	}
	if _, err := os.Lstat(s.cfg.Work + "2"); err == nil {
		t.Error("a work directory was made, and stays")
	}
}
