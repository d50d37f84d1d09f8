package ocilayer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	overlay "github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// site is a comparison of the layers that tables describe, the upper first. All objects have one
// time of modification.
func site(t *testing.T, upper string, lowers ...string) *changes.Comparison {
	t.Helper()
	l := testkit.NewLayers(t, upper, lowers...)
	for _, dir := range append([]string{l.Upper}, l.Lowers...) {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			old := []unix.Timespec{{Sec: 1000, Nsec: 5}, {Sec: 1000, Nsec: 5}}
			return unix.UtimesNanoAt(unix.AT_FDCWD, path, old, unix.AT_SYMLINK_NOFOLLOW)
		}))
	}
	var c *changes.Comparison
	var err error
	systest.WithoutClones(func() {
		c, err = changes.Open(overlay.Config{
			Upper: l.Upper, Lowers: l.Lowers, Log: zap.NewNop(), Redirects: overlay.RedirectsFollow,
			Features: overlay.Features{MetaCopy: true},
		})
	})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// write writes a layer and returns the sockets that are not in it.
func write(c *changes.Comparison, to io.Writer, paths ...string) (skipped []string, err error) {
	w := NewWriter(to, c.HasLowers(), func(p string) { skipped = append(skipped, p) })
	if err = c.Walk(paths, w); err == nil {
		err = w.Close()
	}
	return skipped, err
}

// entries describes an archive, one entry a line.
func entries(t *testing.T, archive []byte) string {
	t.Helper()
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return b.String()
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		fmt.Fprintf(&b, "%c %s", h.Typeflag, h.Name)
		switch {
		case h.Typeflag == tar.TypeLink || h.Typeflag == tar.TypeSymlink:
			fmt.Fprintf(&b, " to %s", h.Linkname)
		case h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock:
			fmt.Fprintf(&b, " %d/%d", h.Devmajor, h.Devminor)
		case len(data) > 0:
			fmt.Fprintf(&b, " %s", testkit.Quoted(string(data)))
		}
		if marker := h.Mode == 0 && h.Typeflag == tar.TypeReg; !marker {
			fmt.Fprintf(&b, " %04o %d:%d", h.Mode, h.Uid, h.Gid)
			if at := h.ModTime; at.Unix() != 1000 || at.Nanosecond() != 5 {
				fmt.Fprintf(&b, " time %v", at)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if xattr, ok := strings.CutPrefix(name, xattrPrefix); ok {
				fmt.Fprintf(&b, " %s=%q", xattr, h.PAXRecords[name])
			}
		}
		b.WriteByte('\n')
	}
}

func TestLayers(t *testing.T) {
	const redirect, metacopy = "trusted.overlay.redirect", "trusted.overlay.metacopy"
	long := strings.Repeat("n", 253)
	for _, tt := range []struct {
		name   string
		upper  string
		lowers []string
		want   string
	}{
		{"types", "file s 4755\nfile f \"data\"\nown f 3000000 7\nxattr f user.x \"a=\\x00\"\nsymlink l ../x\nfifo p 0600\nchar c 1/3 0620\nblock k 7/300 0600\ndir d 1777",
			[]string{""}, `
			3 c 1/3 0620 0:0
			5 d/ 1777 0:0
			0 f "data" 0644 3000000:7 user.x="a=\x00"
			4 k 7/300 0600 0:0
			2 l to ../x 0777 0:0
			6 p 0600 0:0
			0 s 4755 0:0`},
		{"parents come before what is in them, and nothing else does", "file a/b/new\ndir a/b/copied\ndir other/copied",
			[]string{"dir a 0700\ndir a/b\ndir a/b/copied\ndir other/copied"}, `
			5 a/ 0755 0:0
			5 a/b/ 0755 0:0
			0 a/b/new 0644 0:0`},
		{"gone", "white a/f\nwhite d\nfile .wh.m\nwhite none", []string{"file a/f\nfile d/in\nfile m"}, `
			5 a/ 0755 0:0
			0 a/.wh.f
			0 .wh.d
			0 .wh.m`},
		{"opaque", "opaque d\nfile d/a\nfile d/same", []string{"file d/b\nfile d/same"}, `
			5 d/ 0755 0:0
			0 d/a 0644 0:0
			0 d/.wh.b`},
		{"without lowers", "opaque d\nfile d/a\nwhite d/w", nil, `
			5 d/ 0755 0:0
			0 d/.wh..wh..opq
			0 d/a 0644 0:0`},
		{"a name too long for a marker", "white d/" + long + "\nfile d/new", []string{"file d/" + long + "\nfile d/sub/f\nlink d/sub/g d/sub/f"}, `
			5 d/ 0755 0:0
			0 d/.wh..wh..opq
			0 d/new 0644 0:0
			5 d/sub/ 0755 0:0
			0 d/sub/f 0644 0:0
			1 d/sub/g to d/sub/f 0644 0:0`},
		{"links", "file b \"x\"\nlink a b\nlink d/c b", []string{""}, `
			0 a "x" 0644 0:0
			1 b to a 0644 0:0
			5 d/ 0755 0:0
			1 d/c to a 0644 0:0`},
		{"a link to an unchanged file", "file a\nlink b a", []string{"file a"}, `
			0 a 0644 0:0
			1 b to a 0644 0:0`},
		{"a metacopy has its data", "file f 0600\nsize f 3\nxattr f " + metacopy + " \"\"", []string{"file f \"abc\""}, `
			0 f "abc" 0600 0:0`},
		{"a renamed directory is whole", "dir new\nxattr new " + redirect + " /old\nwhite old\nwhite new/gone\nfile new/own", []string{"file old/f\nfile old/gone"}, `
			5 new/ 0755 0:0
			0 new/f 0644 0:0
			0 new/own 0644 0:0
			0 .wh.old`},
		{"over another", "dir new\nxattr new " + redirect + " /old\nwhite old", []string{"file old/f\nfile new/lost"}, `
			5 new/ 0755 0:0
			0 new/.wh..wh..opq
			0 new/f 0644 0:0
			0 .wh.old`},
		{"escaped xattrs", "file f\nxattr f trusted.overlay.overlay.opaque y\nxattr f trusted.overlay.origin x", []string{""}, `
			0 f 0644 0:0 trusted.overlay.opaque="y"`},
		{"the root", "", []string{"xattr . user.x 1"}, `
			5 ./ 0755 0:0`},
	} {
		c := site(t, tt.upper, tt.lowers...)
		var archive, again bytes.Buffer
		skipped, err := write(c, &archive)
		must(t, err)
		var want strings.Builder
		for line := range strings.Lines(tt.want) {
			if line = strings.TrimSpace(line); line != "" {
				want.WriteString(line + "\n")
			}
		}
		if got := entries(t, archive.Bytes()); got != want.String() || len(skipped) > 0 {
			t.Errorf("%s:\n%s%swant:\n%s", tt.name, got, skipped, want.String())
		}
		if _, err := write(c, &again); err != nil || !bytes.Equal(archive.Bytes(), again.Bytes()) {
			t.Errorf("%s: the second archive differs, %v", tt.name, err)
		}
	}
}

func TestSocketsAreLeftOut(t *testing.T) {
	var archive bytes.Buffer
	skipped, err := write(site(t, "sock s\nfile f", ""), &archive)
	if got := entries(t, archive.Bytes()); err != nil || !slices.Equal(skipped, []string{"s"}) || got != "0 f 0644 0:0\n" {
		t.Errorf("%q without %q, %v", got, skipped, err)
	}
}

// What an archive cannot show rightly is an error that names the object.
func TestRefused(t *testing.T) {
	const redirect, metacopy = "trusted.overlay.redirect", "trusted.overlay.metacopy"
	for _, tt := range []struct {
		upper, lower string
		alone        bool
		path, want   string
	}{
		{"file d/f\nxattr d/f " + metacopy + " \"\"", "", true, ".", "d/f: is only a part"},
		{"dir d/x\nxattr d/x " + redirect + " /y", "", true, ".", "d/x: is only a part"},
		{"dir new\nxattr new " + redirect + " /old\nfile new/f", "dir old", false, "new/f", "new: was renamed"},
		{"file f\nxattr f user.a=b 1", "", false, ".", `f: has an xattr with "=" in its name, which a layer cannot hold: user.a=b`},
	} {
		lowers := []string{tt.lower}
		if tt.alone {
			lowers = nil
		}
		if _, err := write(site(t, tt.upper, lowers...), io.Discard, tt.path); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.upper, err, tt.want)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// An error of the output or of a layer ends the archive.
func TestFailures(t *testing.T) {
	c := site(t, "file f \""+strings.Repeat("x", 100)+"\"\nsymlink l x\ndir d\nwhite gone", "file gone")
	if _, err := write(c, fullDisk{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	for _, call := range []string{"pread64", "readlinkat", "listxattr", "getdents64"} {
		systest.While(systest.Call(call), unix.EIO, func() {
			if _, err := write(c, io.Discard); !errors.Is(err, unix.EIO) {
				t.Errorf("%s: %v", call, err)
			}
		})
	}
}
