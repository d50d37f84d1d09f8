package owner

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// An override attribute is invalid and changes nothing, or is the same when it is written again. It
// never makes a file a directory or a symbolic link, and never changes the type of any other
// object.
func FuzzOverride(f *testing.F) {
	for _, text := range []string{"0:0:0755:dir", "5:6:04711:file", "5:6:644", "1:2:0600:block-7-300", "1:2:0600:pipe", "1:2:0600:socket\x00"} {
		f.Add([]byte(text), uint32(unix.S_IFREG|0o600))
		f.Add([]byte(text), uint32(unix.S_IFDIR|0o700))
	}
	f.Fuzz(func(t *testing.T, text []byte, mode uint32) {
		before := sys.Stat{Mode: mode, Size: 33, Uid: 99, Gid: 99}
		st := before
		if err := parse(text, &st); err != nil {
			if err != unix.EIO || st != before {
				t.Errorf("%v, and %+v became %+v", err, before, st)
			}
			return
		}
		was, is := mode&unix.S_IFMT, st.Mode&unix.S_IFMT
		if was != is && (was != unix.S_IFREG || is == unix.S_IFDIR || is == unix.S_IFLNK) {
			t.Errorf("an object of type %o became one of %o", was, is)
		}
		if st.Mode&^(unix.S_IFMT|0o7777) != 0 {
			t.Errorf("mode %o", st.Mode)
		}
		again := before
		if err := parse(format(&st), &again); was == unix.S_IFREG && (err != nil || again != st) {
			t.Errorf("%+v is %+v when %q is read again (%v)", st, again, format(&st), err)
		}
	})
}

// A mapping is refused, or it leads from every id of its ranges to one other id and back.
func FuzzMapping(f *testing.F) {
	f.Add("0:1000:1:1:100000:65536", uint32(7))
	f.Add(":0:0:4294967295", uint32(4294967294))
	f.Fuzz(func(t *testing.T, text string, id uint32) {
		m, err := ParseMapping(text)
		if err != nil {
			return
		}
		ids := IDs{UIDs: m, OverflowUID: 65534}
		for _, r := range m {
			disk := r.Disk + id%r.Length
			shown := ids.show(users, disk)
			if shown-r.Shown >= r.Length {
				t.Errorf("%q shows %d as %d, outside of %+v", text, disk, shown, r)
			}
			if back := ids.store(users, shown); back != disk {
				t.Errorf("%q shows %d as %d, and stores it as %d", text, disk, shown, back)
			}
		}
	})
}
