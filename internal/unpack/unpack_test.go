package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// Every kind of object, with owner, mode, times and attributes.
func TestObjects(t *testing.T) {
	folder := wantLayer(t, "objects", `
		dir d 0750
		own d 3 4
		file d/f 4755 "data"
		own d/f 1 2
		file d/f 4755 "data"
		xattr d/f user.x "v\x00"
		link d/l d/f
		symlink s d/f
		fifo p 0600
		char c 1/3 0600
		block b 7/0 0600`,
		object{typ: tar.TypeXGlobalHeader},
		object{name: "./", typ: tar.TypeDir, mode: 0o711},
		object{name: "d/", typ: tar.TypeDir, mode: 0o750, set: func(h *tar.Header) { h.Uid, h.Gid = 3, 4 }},
		object{name: "./d/f", typ: tar.TypeReg, mode: 0o4755, data: "data", set: func(h *tar.Header) { h.Uid, h.Gid = 1, 2 }}.with("user.x", "v\x00"),
		hardlink("d/l", "./d/f"), symlink("s", "d/f"),
		object{name: "p", typ: tar.TypeFifo, mode: 0o600}, device("c", tar.TypeChar, 1, 3), device("b", tar.TypeBlock, 7, 0))
	for _, name := range []string{".", "d", "d/f", "s", "p", "c", "b"} {
		info, err := os.Lstat(filepath.Join(folder, "layer", name))
		must(t, err)
		if !info.ModTime().Equal(testTime) {
			t.Errorf("%s has time %v", name, info.ModTime())
		}
		if name == "." && info.Mode().Perm() != 0o711 {
			t.Errorf("the root has mode %v", info.Mode())
		}
	}
}

// The compression is found by the first bytes. Behind the archive may be anything.
func TestCompression(t *testing.T) {
	plain := append(archive(t, file("f", strings.Repeat("data", 10000))), make([]byte, 10<<10)...)
	var zipped, zstandard bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	zs, err := zstd.NewWriter(&zstandard)
	must(t, err)
	for _, w := range []io.WriteCloser{gz, zs} {
		_, err := w.Write(plain)
		must(t, err)
		must(t, w.Close())
	}
	for name, data := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(), "zstd": zstandard.Bytes()} {
		folder, warnings, err := apply(t, data, Options{})
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %q", name, err, warnings)
			continue
		}
		info, err := os.Stat(folder + "/layer/f")
		must(t, err)
		if info.Size() != 40000 {
			t.Errorf("%s: %d bytes", name, info.Size())
		}
	}
}

// A whiteout hides what layers below have, wherever in the archive it is.
func TestWhiteouts(t *testing.T) {
	longest := strings.Repeat("n", 251)
	for _, tt := range []struct {
		name    string
		want    string
		objects []object
	}{
		{"of a name", "white a\nwhite d/b", []object{marker(".wh.a"), dir("d"), marker("d/.wh.b")}},
		{"twice", "white a", []object{marker(".wh.a"), marker(".wh.a")}},
		{"of a type that is no file", "white a", []object{dir(".wh.a"), symlink(".wh.a", "x")}},
		{"before its name", "file a 0644 \"x\"", []object{marker(".wh.a"), file("a", "x")}},
		{"behind its name", "file a 0644 \"x\"", []object{file("a", "x"), marker(".wh.a")}},
		{"of a directory before it", "opaque d\nfile d/f 0644 \"x\"", []object{marker(".wh.d"), dir("d"), file("d/f", "x")}},
		{"of a directory behind it", "opaque d\nfile d/f 0644 \"x\"", []object{dir("d"), file("d/f", "x"), marker(".wh.d")}},
		{"of its own directory's name", "white d/d", []object{dir("d"), marker("d/.wh.d")}},
		{"opaque", "opaque d\nfile d/f 0644 \"x\"", []object{dir("d"), file("d/f", "x"), marker("d/.wh..wh..opq")}},
		{"opaque first", "opaque d\nfile d/f 0644 \"x\"", []object{dir("d"), marker("d/.wh..wh..opq"), file("d/f", "x")}},
		{"opaque, and whiteouts in it", "opaque d", []object{dir("d"), marker("d/.wh.x"), marker("d/.wh..wh..opq"), marker("d/.wh.y")}},
		{"in a missing directory", "white d/e/f", []object{marker("d/e/.wh.f")}},
		{"opaque, missing", "dir d\nopaque d/e", []object{marker("d/e/.wh..wh..opq")}},
		{"of the longest name", "white " + longest, []object{marker(".wh." + longest)}},
		{"for AUFS", "file f 0644 \"x\"", []object{dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "y"), marker(".wh..wh.aufs"), file("f", "x")}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantLayer(t, tt.name, tt.want, tt.objects...) })
	}
	folder := wantLayer(t, "times", "white d/a", object{name: "./", typ: tar.TypeDir, mode: 0o755}, dir("d"), marker("d/.wh.a"))
	for _, name := range []string{".", "d"} {
		info, err := os.Stat(filepath.Join(folder, "layer", name))
		must(t, err)
		if !info.ModTime().Equal(testTime) {
			t.Errorf("%s has time %v after a whiteout", name, info.ModTime())
		}
	}
}

// Where the file system takes no devices, whiteouts are files.
func TestWhiteoutsWithoutDevices(t *testing.T) {
	var err error
	var folder string
	systest.While(systest.Call("mknodat"), unix.EPERM, func() {
		folder, _, err = apply(t, archive(t, dir("d"), marker("d/.wh.a"), dir("o"), marker(".wh.o")), Options{})
	})
	must(t, err)
	testkit.Want(t, "markers", folder+"/layer", "file d/.wh.a 0000\nopaque o")
}

// A plain user without Squash gets what belongs to that user, and with it everything.
func TestPlainUser(t *testing.T) {
	const user = 4242
	own := func(o object) object {
		o.set = func(h *tar.Header) { h.Uid, h.Gid = user, user }
		return o
	}
	closed := object{name: "closed/", typ: tar.TypeDir, mode: 0}
	readOnly := object{name: "./", typ: tar.TypeDir, mode: 0o555}
	layer := archive(t, readOnly, dir("d"), file("d/f", "x"), marker("d/.wh.a"), closed, marker("closed/.wh.a"), dir("closed/in"),
		marker("closed/in/.wh..wh..opq"))
	mine := archive(t, own(file("f", "x")), own(object{name: "shut/", typ: tar.TypeDir, mode: 0o500}), marker("shut/.wh.x"))
	devices := archive(t, device("c", tar.TypeChar, 1, 3))
	testkit.AsUser(t, user, func() {
		folder, _, err := apply(t, layer, Options{})
		if err == nil || !strings.Contains(err.Error(), "user 0 and group 0") || !strings.Contains(err.Error(), "--squash") {
			t.Errorf("other owners: %v", err)
		}
		wantNames(t, "other owners", folder)
	})
	for _, tt := range []struct {
		name, want string
		layer      []byte
		squash     bool
	}{
		{"own objects", "file f 0644 \"x\"\ndir shut 0500\nwhite shut/x\nown f 4242 4242\nown shut 4242 4242\nown shut/x 4242 4242", mine, false},
		{"squashed", "file d/f 0644 \"x\"\nwhite d/a\ndir closed 0000\nwhite closed/a\ndir closed/in\n" +
			"xattr closed/in user.overlay.opaque y\nown d/f 4242 4242\nown d 4242 4242\nown closed 4242 4242\nown closed/in 4242 4242", layer, true},
	} {
		var folder string
		var warnings []string
		var err error
		testkit.AsUser(t, user, func() { folder, warnings, err = apply(t, tt.layer, Options{Squash: tt.squash}) })
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %q", tt.name, err, warnings)
			continue
		}
		testkit.Want(t, tt.name, folder+"/layer", tt.want)
	}
	for _, squash := range []bool{true, false} {
		testkit.AsUser(t, user, func() {
			folder, _, err := apply(t, devices, Options{Squash: squash})
			if err == nil || !strings.Contains(err.Error(), "device nodes") {
				t.Errorf("device: %v", err)
			}
			wantNames(t, "device", folder)
		})
	}
}

// What is in the way is an error at once, and stays.
func TestTargets(t *testing.T) {
	folder := t.TempDir()
	testkit.Build(t, folder, "dir empty 0700\nfile full/f 0644 \"x\"\nfile file 0644\nsymlink link empty")
	layer := archive(t, file("f", "new"))
	before := testkit.Snapshot(t, folder)
	for _, name := range []string{"full", "file", "link", "missing/layer", "full/f/layer"} {
		if err := Unpack(context.Background(), unread{t}, filepath.Join(folder, name), Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if d := testkit.Diff(before, testkit.Snapshot(t, folder)); d != "" {
		t.Error(d)
	}
	must(t, Unpack(context.Background(), bytes.NewReader(layer), filepath.Join(folder, "empty"), Options{}))
	testkit.Want(t, "an empty directory", filepath.Join(folder, "empty"), "file f 0644 \"new\"")

	point := filepath.Join(folder, "point")
	must(t, os.Mkdir(point, 0o755))
	testkit.MountAt(t, "tmpfs", "tmpfs", point, "")
	err := Unpack(context.Background(), bytes.NewReader(layer), point, Options{})
	if err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("a mount point: %v", err)
	}
}

// unread is a layer that is not read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the layer was read")
	return 0, io.EOF
}

// An interrupt ends a command that waits for its layer, and leaves nothing.
func TestInterrupt(t *testing.T) {
	folder := t.TempDir()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(archive(t, file("a", "x"), file("b", "x"))[:1536])
		cancel(stop)
	}()
	done := make(chan error)
	go func() { done <- Unpack(ctx, r, filepath.Join(folder, "layer"), Options{}) }()
	select {
	case err := <-done:
		if !errors.Is(err, stop) {
			t.Errorf("the error is %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still waiting for the layer")
	}
	wantNames(t, "after the interrupt", folder)
	must(t, r.Close())
}

// If a call fails, nothing is left, and the call is reported. With each further call failing the
// directory beside stays, and the error names it.
func TestFaults(t *testing.T) {
	layer := archive(t, dir("d"), file("d/f", "x"), marker("d/.wh.a"), dir("o"), marker("o/.wh..wh..opq"))
	calls := systest.Calls(func() {
		_, _, err := apply(t, layer, Options{})
		must(t, err)
	})
	if len(calls) < 10 {
		t.Fatalf("%d calls", len(calls))
	}
	for i := range calls {
		n, failed := 0, false
		var folder string
		var err error
		systest.While(func(op sys.Op) bool {
			n++
			failed = failed || n == i+1
			return n == i+1
		}, unix.EIO, func() { folder, _, err = apply(t, layer, Options{}) })
		switch {
		case !failed:
			t.Errorf("call %d was not made", i)
		case err != nil:
			if entries, _ := os.ReadDir(folder); len(entries) > 0 && !strings.Contains(err.Error(), "remove it yourself") &&
				!(len(entries) == 1 && entries[0].Name() == "layer") {
				t.Errorf("call %d, %v: %v leaves %v", i, calls[i], err, entries)
			}
		default:
			testkit.Want(t, "unpacked in spite of "+calls[i].Call, folder+"/layer", "dir d\nfile d/f 0644 \"x\"\nwhite d/a\nopaque o")
		}
	}
}
