package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// object is an entry of an archive.
type object struct {
	name  string
	typ   byte // of archive/tar
	mode  int64
	data  string // of a file; target of a link
	set   func(h *tar.Header)
	xattr [2]string
}

func file(name, data string) object {
	return object{name: name, typ: tar.TypeReg, mode: 0o644, data: data}
}
func dir(name string) object    { return object{name: name + "/", typ: tar.TypeDir, mode: 0o755} }
func marker(name string) object { return object{name: name, typ: tar.TypeReg} }
func symlink(name, target string) object {
	return object{name: name, typ: tar.TypeSymlink, mode: 0o777, data: target}
}
func hardlink(name, target string) object {
	return object{name: name, typ: tar.TypeLink, mode: 0o644, data: target}
}

// device is a device node.
func device(name string, typ byte, major, minor int64) object {
	return object{name: name, typ: typ, mode: 0o600, set: func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor }}
}

func (o object) with(name, value string) object {
	o.xattr = [2]string{name, value}
	return o
}

var testTime = time.Unix(1e9, 123)

// archive makes an archive of entries.
func archive(t testing.TB, objects ...object) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, o := range objects {
		h := &tar.Header{Name: o.name, Typeflag: o.typ, Mode: o.mode, ModTime: testTime, Format: tar.FormatPAX}
		switch o.typ {
		case tar.TypeReg:
			h.Size = int64(len(o.data))
		case tar.TypeXGlobalHeader:
			*h = tar.Header{Typeflag: o.typ, PAXRecords: map[string]string{"comment": "c"}}
		default:
			h.Linkname = o.data
		}
		if o.xattr[0] != "" {
			h.PAXRecords = map[string]string{"SCHILY.xattr." + o.xattr[0]: o.xattr[1]}
		}
		if o.set != nil {
			o.set(h)
		}
		must(t, w.WriteHeader(h))
		if o.typ == tar.TypeReg {
			_, err := w.Write([]byte(o.data))
			must(t, err)
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

// apply unpacks a layer as the directory "layer" of a new folder, and returns the folder and the
// warnings.
func apply(t *testing.T, layer []byte, o Options) (folder string, warnings []string, err error) {
	t.Helper()
	folder = t.TempDir()
	must(t, os.Chmod(folder, 0o777))
	must(t, os.Chmod(filepath.Dir(folder), 0o755))
	unix.Umask(0o022) // as the command sets it
	o.Warn = func(text string) { warnings = append(warnings, text) }
	err = Unpack(context.Background(), bytes.NewReader(layer), filepath.Join(folder, "layer"), o)
	return folder, warnings, err
}

// wantLayer unpacks a layer and compares it with a table of testkit.
func wantLayer(t *testing.T, what, table string, objects ...object) (folder string) {
	t.Helper()
	folder, warnings, err := apply(t, archive(t, objects...), Options{})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%s: %v, %q", what, err, warnings)
	}
	wantNames(t, what, folder, "layer")
	testkit.Want(t, what, filepath.Join(folder, "layer"), table)
	return folder
}

// wantNames compares the names in a folder.
func wantNames(t *testing.T, what, folder string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != len(want) || len(want) > 0 && names[0] != want[0] {
		t.Errorf("%s: the folder has %q, want %q", what, names, want)
	}
}
