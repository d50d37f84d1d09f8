package fs

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// quietLayers are two lowers without an xattr that the mount shows.
var quietLayers = []string{
	"file d/f\nsymlink d/l f\nwhite d/gone\nopaque o\nfile o/f",
	"file d/g\ndir d/e\nfile d/gone\nfifo p",
}

// readByEngine opens an overlay without an upper, as an engine mounts it.
func readByEngine(t *testing.T, change func(*Config), lowers ...string) *site {
	t.Helper()
	c := newFolders(t, "", lowers...)
	c.Upper, c.Work, c.ReadByEngine = "", "", true
	if change != nil {
		change(&c)
	}
	return openSite(t, c)
}

// compareOnce requests what a comparison of trees requests of one object.
func (s *site) compareOnce(id uint64, list bool) (value, names error) {
	_, value = s.xattr(id, capability)
	if list {
		_, names = s.xattrs(id)
	}
	return value, names
}

// compare makes the requests of a comparison until the layers are searched, and waits for the end
// of the search. It returns the errors of one more object. It fails the test if no search begins.
func (s *site) compare(list bool) (value, names error) {
	s.t.Helper()
	id, err := s.walk("d/f")
	must(s.t, err)
	for range searchRequests {
		value, names := s.compareOnce(id, list)
		if s.o.quiet.searching.Load() { // the search may have ended
			break
		}
		want(s.t, "a capability", value, unix.ENODATA)
		want(s.t, "a list", names, nil)
	}
	if !s.o.quiet.searching.Load() {
		s.t.Fatalf("no search after %d requests", searchRequests)
	}
	<-s.o.quiet.ended
	return s.compareOnce(id, list)
}

// Without an xattr in any layer, the kernel is to stop requesting them. It goes on to request lists
// if the caller has requested none with its capabilities.
func TestQuietXattrs(t *testing.T) {
	for _, lists := range []bool{true, false} {
		s := readByEngine(t, nil, quietLayers...)
		value, names := s.compare(lists)
		want(t, "a value", value, unix.ENOSYS)
		id, err := s.walk("o/f")
		must(t, err)
		for _, name := range []string{"security.selinux", "user.x", accessACL} {
			_, err := s.xattr(id, name)
			want(t, name, err, unix.ENOSYS)
		}
		if _, err := s.xattrs(id); lists {
			want(t, "a list", err, unix.ENOSYS)
			want(t, "a list", names, unix.ENOSYS)
		} else {
			want(t, "a list that was not requested", err, nil)
		}
	}
}

// One xattr of any object is enough, shown or hidden. Private xattrs are none.
func TestOneXattrIsEnough(t *testing.T) {
	for _, line := range []string{
		"xattr . user.x v", "xattr d user.x v", "xattr d/e user.x v", "xattr d/gone user.x v", "xattr p trusted.x v", "xattr d/g security.x v",
		"xattr d/g user.overlay.overlay.opaque y",
	} {
		value, _ := readByEngine(t, nil, quietLayers[0], quietLayers[1]+"\n"+line).compare(true)
		want(t, line, value, unix.ENODATA)
	}
	for _, line := range []string{"xattr d/g user.overlay.origin v", "xattr d/g user.containers.override_stat 0:0:0644", "xattr d/g user.fuseoverlayfs.x v"} {
		value, _ := readByEngine(t, nil, quietLayers[0], quietLayers[1]+"\n"+line).compare(true)
		want(t, line, value, unix.ENOSYS)
	}
}

// Only a mount that an engine made to read its layers, and that cannot change, may become quiet.
func TestMountsThatAreNeverQuiet(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"turned off":    func(c *Config) { c.Disabled = QuietXattrs },
		"layers change": func(c *Config) { c.LayersChange = true },
	} {
		wantNoSearch(t, what, readByEngine(t, change, quietLayers...), true)
	}
	notEngines := readByEngine(t, func(c *Config) { c.ReadByEngine = false }, quietLayers...)
	value, names := notEngines.compare(true)
	want(t, "not an engine's", value, unix.ENODATA)
	want(t, "not an engine's", names, nil)
	c := newFolders(t, "", quietLayers...)
	c.ReadByEngine, c.ReadOnly, c.Conn.Timeout = true, true, -1
	wantNoSearch(t, "the upper of another mount", openSite(t, c), true)
	c = newFolders(t, "", quietLayers...)
	wantNoSearch(t, "writable, without lists", openSite(t, c), false)
}

func wantNoSearch(t *testing.T, what string, s *site, lists bool) {
	t.Helper()
	id, err := s.walk("d/f")
	must(t, err)
	for range 2 * searchRequests {
		value, _ := s.compareOnce(id, lists)
		want(t, what, value, unix.ENODATA)
	}
	if s.o.quiet.searching.Load() {
		t.Errorf("%s: the layers are searched", what)
	}
}

// On a mount that can be written, objects of lowers cost no call after the search, and what is set
// through the mount shows.
func TestLowersWithoutXattrs(t *testing.T) {
	s := newSite(t, "file d/up\nxattr d/up user.x v\nfile d/new", quietLayers...)
	value, listed := s.compare(true)
	want(t, "a value", value, unix.ENODATA)
	want(t, "a list", listed, nil)
	for name, call := range map[string]string{"d/g": "[]", "o/f": "[]", "d/new": "[listxattr]"} {
		id, err := s.walk(name)
		must(t, err)
		made := calls(func() {
			_, err := s.xattr(id, "user.x")
			want(t, name, err, unix.ENODATA)
			list, err := s.xattrs(id)
			want(t, name, err, nil)
			if list != "" {
				t.Errorf("%s has %q", name, list)
			}
		})
		if got := fmt.Sprint(names(made)); got != call {
			t.Errorf("%s costs %s, want %s", name, got, call)
		}
	}
	s.do(s.setxattr("d/g", "user.x", "v"))
	for _, name := range []string{"d/up", "d/g"} {
		id, err := s.walk(name)
		must(t, err)
		if v, err := s.xattr(id, "user.x"); v != "v" || err != nil {
			t.Errorf("%s: %q, %v", name, v, err)
		}
		if list, err := s.xattrs(id); list != "user.x\x00" || err != nil {
			t.Errorf("%s: the list is %q, %v", name, list, err)
		}
	}
	id, err := s.walk("p")
	must(t, err)
	_, err = s.xattr(id, "ceph.made.up")
	want(t, "an attribute that need not be listed", err, unix.EOPNOTSUPP)
}

// If any call of the search fails, nothing is known, and the requests are answered as before.
func TestSearchThatFails(t *testing.T) {
	made := len(calls(readByEngine(t, nil, quietLayers...).o.searchXattrs))
	if made < 20 {
		t.Fatalf("the search makes %d calls", made)
	}
	for i := range made {
		s := readByEngine(t, nil, quietLayers...)
		id, err := s.walk("d/f")
		must(t, err)
		before, call, n := openFDs(t), "", 0
		systest.While(func(op sys.Op) bool {
			if n++; n == i+1 {
				call = op.Call
				return true
			}
			return false
		}, unix.EIO, s.o.searchXattrs)
		what := fmt.Sprintf("%s, the call %d", call, i)
		value, names := s.compareOnce(id, true)
		want(t, what, value, unix.ENODATA)
		want(t, what, names, nil)
		if after := openFDs(t); after > before+1 { // the requests may keep a directory open
			t.Errorf("%s: %d descriptors, before %d", what, after, before)
		}
	}
}

// The search ends at its bounds.
func TestSearchIsBounded(t *testing.T) {
	o := readByEngine(t, nil, quietLayers...).o
	many := xattrSearch{o: o, objects: maxSearched, end: time.Now().Add(time.Hour)}
	if err := o.stack.EachFixedObject(many.visit); !errors.Is(err, errManyObjects) {
		t.Errorf("too many objects: %v", err)
	}
	slow := xattrSearch{o: o, objects: searchTurn - 1, end: time.Now().Add(-time.Second)}
	if err := o.stack.EachFixedObject(slow.visit); !errors.Is(err, errSlowSearch) {
		t.Errorf("too slow: %v", err)
	}
}

// Close ends a search under way, and none makes a call afterwards.
func TestCloseEndsTheSearch(t *testing.T) {
	c := newFolders(t, "", quietLayers...)
	c.Upper, c.Work, c.ReadByEngine = "", "", true
	s := &site{t: t, cfg: c}
	s.open()
	o, entered, resume := s.o, make(chan struct{}), make(chan struct{})
	lists := 0 // by the goroutine of the search alone
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "listxattr" {
			if lists++; lists == 2 {
				close(entered)
				<-resume
			}
		}
		return nil
	})
	defer sys.SetFault(nil)
	o.quiet.searching.Store(true)
	go o.searchXattrs()
	<-entered
	shut := make(chan struct{})
	go func() { s.shut(); close(shut) }()
	select {
	case <-shut:
		t.Error("Close does not wait for the search")
	case <-time.After(20 * time.Millisecond):
	}
	close(resume)
	<-shut
	<-o.quiet.ended
	if lists != 2 || o.quiet.noValues.Load() {
		t.Errorf("%d lists were read, quiet is %v", lists, o.quiet.noValues.Load())
	}
	if o.stack.EachFixedObject((&xattrSearch{o: o}).visit) == nil {
		t.Error("a search begins after Close")
	}
}

// A call on a layer that does not answer does not keep Close.
func TestCloseLeavesASearchThatHangs(t *testing.T) {
	s := readByEngine(t, nil, quietLayers...)
	resume := make(chan struct{})
	entered := make(chan struct{})
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "listxattr" {
			close(entered)
			<-resume
			return unix.EIO
		}
		return nil
	})
	defer sys.SetFault(nil)
	o := s.o
	o.quiet.searching.Store(true)
	go o.searchXattrs()
	<-entered
	start := time.Now()
	o.quiet.close()
	if took := time.Since(start); took > 5*searchEnd {
		t.Errorf("Close waits for %v", took)
	}
	close(resume)
	<-o.quiet.ended
}

// Labels of SELinux are no reason to go on: SELinux answers requests for them itself. A file system
// without lists is one.
func TestListsThatEndTheSearch(t *testing.T) {
	o := readByEngine(t, nil, quietLayers...).o
	for _, selinux := range []bool{true, false} {
		o.selinux = selinux
		want(t, "a label", o.wantNoXattr([]string{selinuxXattr}), nil)
		want(t, "a capability beside a label", o.wantNoXattr([]string{selinuxXattr, capability}), errHasXattr)
		want(t, "an empty list", o.wantNoXattr([]string{}), nil)
		want(t, "no list", o.wantNoXattr(nil), errNoList)
	}
}

// With SELinux the kernel goes on to request lists, which have the names of labels.
func TestQuietXattrsWithSELinux(t *testing.T) {
	s := readByEngine(t, nil, quietLayers...)
	s.o.selinux = true
	value, names := s.compare(true)
	want(t, "a value", value, unix.ENOSYS)
	want(t, "a list", names, nil)
}

// A lower that has the upper in it changes with the upper.
func TestLowerAboveTheUpperIsNotSearched(t *testing.T) {
	c := newFolders(t, "", quietLayers...)
	c.Lowers[0] = filepath.Dir(c.Upper)
	if o := openSite(t, c).o; o.quiet.possible {
		t.Error("the layers may be searched")
	}
}
