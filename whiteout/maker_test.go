package whiteout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const coverTable = "file file\ndir empty\ndir dir\nwhite dir/old\nfile dir/.wh.older"

// At no moment does a covered name show what is below, and a call that fails leaves the object or
// the whiteout.
func TestCover(t *testing.T) {
	for _, name := range []string{"lower", "file", "empty", "dir"} {
		inEachForm(t, coverTable, func(r *run) {
			e := r.entry(name, true)
			before, _ := r.look(name)
			var err error
			r.watched(func() {
				if _, hidden := r.look(name); !hidden && e.Has != Lower {
					r.t.Error("the lower's object shows")
				}
			}, func() { err = r.Cover(e) })
			switch {
			case err == nil:
				r.want("covered", name, 0, true)
			case r.fail < 0 && err == unix.ENAMETOOLONG && r.noFlags && e.Has == Directory && r.InPlace(name):
				r.want("refused", name, before, true)
			case r.fail < 0:
				r.t.Errorf("covering: %v", err)
			case err != unix.EIO:
				r.t.Errorf("call %d fails: %v", r.fail, err)
			default:
				if kind, hidden := r.look(name); kind != before && kind != 0 || e.Has != Lower && !hidden {
					r.t.Errorf("call %d fails: type %#o, hidden %v", r.fail, kind, hidden)
				}
			}
			if r.fail < 0 {
				r.wantEmptyWork("covered")
			}
		})
	}
}

// A directory is removed with the whiteouts in it.
func TestRemoveDir(t *testing.T) {
	u := newUpper(t, coverTable)
	for _, name := range []string{"empty", "dir"} {
		must(t, u.RemoveDir(u.entry(name, false)))
		u.want("removed", name, 0, false)
	}
	if err := u.RemoveDir(Entry{Dir: u.dir, Name: "none"}); err != unix.ENOENT {
		t.Errorf("nothing: %v", err)
	}
	u.wantEmptyWork("removed")
}

// makeStaged makes an object in the work directory.
func (u *upper) makeStaged(what Object) string {
	u.t.Helper()
	name := u.work.Name()
	if what == File {
		must(u.t, touch(u.work.dir, name, 0o600))
		return name
	}
	must(u.t, u.work.dir.Mkdir(name, 0o700))
	d, err := u.work.dir.OpenDir(name)
	must(u.t, err)
	defer d.Close()
	must(u.t, u.MakeOpaque(d))
	return name
}

// An object comes to a name that is free, hidden by a marker or a whiteout, and at no moment does a
// lower's object show there.
func TestPlace(t *testing.T) {
	const table = "white device\nfile .wh.marked"
	for _, what := range []Object{File, Directory} {
		for _, name := range []string{"free", "device", "marked"} {
			inEachForm(t, table, func(r *run) {
				e := r.entry(name, name != "free")
				staged := r.makeStaged(what)
				var err error
				r.watched(func() {
					if _, hidden := r.look(name); e.Below && !hidden {
						r.t.Error("the lower's object shows")
					}
				}, func() { err = r.Place(staged, what, e) })
				switch {
				case err == nil:
					if kind, _ := r.look(name); kind == 0 {
						r.t.Error("the object is not there")
					}
				case err != unix.EIO || r.fail < 0:
					r.t.Errorf("call %d fails: %v", r.fail, err)
				}
				if _, hidden := r.look(name); e.Below && !hidden {
					r.t.Errorf("call %d fails: the lower's object shows", r.fail)
				}
			})
		}
	}
}

// A further name of an object replaces the whiteout that is there.
func TestLink(t *testing.T) {
	u := newUpper(t, "file file\nwhite device\nfile .wh.marked")
	for _, name := range []string{"free", "device", "marked"} {
		refusing(func(op sys.Op) bool { return op.Call == "linkat" }, unix.EMLINK, func() {
			if err := u.Link(u.dir.At("file"), u.entry(name, true)); err != unix.EMLINK {
				t.Errorf("%s: %v", name, err)
			}
		})
		must(t, u.Link(u.dir.At("file"), u.entry(name, name != "free")))
		u.want("linked", name, unix.S_IFREG, true)
	}
	RemoveMarker(u.dir, "marked")
	u.want("without its marker", "marked", unix.S_IFREG, true)
	must(t, os.Remove(filepath.Join(u.path, "device")))
	must(t, unix.Mknod(filepath.Join(u.path, "device"), unix.S_IFCHR, 0))
	refusing(func(op sys.Op) bool { return op.Call == "renameat" }, unix.EIO, func() {
		if err := u.Link(u.dir.At("file"), u.entry("device", true)); err != unix.EIO {
			t.Errorf("failing: %v", err)
		}
	})
	u.wantEmptyWork("linked")
}

// moves are the objects that are moved, with what is below their old names, and what they replace.
var moves = struct {
	table string
	from  map[string]bool
	to    map[string]bool
}{
	"file file\nfile covering\nopaque dir\nopaque hiding\nwhite device\nfile .wh.marked\nfile other\ndir empty\ndir full\nwhite full/old",
	map[string]bool{"file": false, "covering": true, "dir": false, "hiding": true},
	map[string]bool{"free": false, "device": true, "marked": true, "other": true, "empty": true, "full": true},
}

// At no moment does a move show what is below the old name or the new one, and a call that fails
// loses no object.
func TestMove(t *testing.T) {
	for from, below := range moves.from {
		for to, hides := range moves.to {
			fromDir := strings.Contains("dir hiding", from)
			if toDir := to == "empty" || to == "full"; fromDir && to == "other" || !fromDir && toDir {
				continue // refused by the caller
			}
			inEachForm(t, moves.table, func(r *run) { r.testMove(from, below, to, hides) })
		}
	}
}

func (r *run) testMove(from string, below bool, to string, hides bool) {
	r.t.Helper()
	src, dst := r.entry(from, below), r.entry(to, hides)
	kind, _ := r.look(from)
	check := func(when string) {
		r.t.Helper()
		for name, hidden := range map[string]bool{from: below, to: hides} {
			if _, is := r.look(name); hidden && !is {
				r.t.Errorf("%s: the lower's object at %s shows", when, name)
			}
		}
		there, _ := r.look(from)
		if now, _ := r.look(to); there != kind && now != kind {
			r.t.Errorf("%s: the object is lost", when)
		}
	}
	var moved Moved
	var err error
	r.watched(func() { check("in between") }, func() { moved, err = r.Move(src, dst, r.dress) })
	check("in the end")
	if r.fail >= 0 {
		return
	}
	switch err {
	case nil:
		r.want("moved", to, kind, true)
		if k, hidden := r.look(from); k != 0 || below && !hidden {
			r.t.Errorf("the old name: type %#o, hidden %v", k, hidden)
		}
		if e := r.entry(from, below); moved.InPlace != (e.Has == InPlace) {
			r.t.Errorf("left: %+v, reported %+v", e, moved)
		}
	case unix.EXDEV, unix.ENAMETOOLONG, unix.EINVAL:
		if src.Has != Directory && !r.noFlags {
			r.t.Errorf("a file: %v", err)
		}
		r.want("refused", from, kind, true)
	default:
		r.t.Errorf("moving: %v", err)
	}
}

// A directory of whiteouts becomes an empty one that looks the same and hides the same.
func TestClear(t *testing.T) {
	for _, name := range []string{"empty", "dir"} {
		inEachForm(t, coverTable, func(r *run) {
			e := r.entry(name, true)
			dressed := 0
			dress := func(empty, old *sys.Dir) error {
				dressed++
				return nil
			}
			var moved string
			var err error
			r.watched(func() {
				if kind, hidden := r.look(name); kind != unix.S_IFDIR || !hidden {
					r.t.Error("the directory is not there")
				}
			}, func() { moved, err = r.clear(&e, dress) })
			if err != nil && (err != unix.EIO || r.fail < 0) || r.fail < 0 && dressed != 0 != (name == "dir") {
				r.t.Errorf("call %d fails: %v, dressed %d times", r.fail, err, dressed)
			}
			if left, err := os.ReadDir(filepath.Join(r.path, name)); r.fail < 0 && (err != nil || len(left) > 0) {
				r.t.Errorf("the directory holds %v (%v)", left, err)
			}
			if (moved != "") != (r.fail < 0 && name == "dir" && !r.noFlags) && r.fail < 0 {
				r.t.Errorf("the old directory is %q", moved)
			}
			if _, err := os.Lstat(filepath.Join(r.path, Marker(name))); e.Marker != (err == nil) {
				r.t.Errorf("the marker is reported as %v, %v", e.Marker, err)
			}
		})
	}
}

// The format is described by what the disk shows.
func TestFormatString(t *testing.T) {
	for want, f := range map[string]Format{
		"devices 0/0, opaque directories by trusted.overlay.opaque":                   {Devices: true, Xattrs: ondisk.Trusted},
		"attributes user.overlay.whiteout, opaque directories by user.overlay.opaque": {WhiteoutXattrs: true, Xattrs: ondisk.User},
		"files .wh.NAME, opaque directories by files .wh..wh..opq":                    {},
	} {
		if got := f.String(); got != want {
			t.Errorf("%+v: %q", f, got)
		}
		if missing := f.Missing(); (len(missing) == 0) != f.Devices {
			t.Errorf("%+v: missing %q", f, missing)
		}
	}
}

// An error of the disk while the forms are found out is returned.
func TestNewMakerFails(t *testing.T) {
	work := &testWork{dir: open(t, t.TempDir())}
	for _, wanted := range []Wanted{{}, {Markers: true}} {
		refusing(func(op sys.Op) bool { return op.Call == "mkdirat" || op.Call == "mknodat" || op.Call == "setxattr" }, unix.ENOSPC, func() {
			if m, err := NewMaker(work, nameMax, wanted); err != unix.ENOSPC || m != nil {
				t.Errorf("%+v: %v", wanted, err)
			}
		})
	}
}
