package stack

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const metacopyAttr = "trusted.overlay.metacopy"

// meta is a line of a table: a metacopy, and its redirect if there is one.
func meta(where string, redirect ...string) string {
	line := fmt.Sprintf("file %[1]s 0600\nsize %[1]s 4\nxattr %[1]s %[2]s \"\"\n", where, metacopyAttr)
	for _, r := range redirect {
		line += fmt.Sprintf("xattr %s %s %s\n", where, redirectAttr, r)
	}
	return line
}

// dataOnly adds data-only layers.
func dataOnly(t *testing.T, c *Config, tables ...string) {
	t.Helper()
	for i, table := range tables {
		dir := filepath.Join(filepath.Dir(c.Upper), fmt.Sprint("data", i))
		must(t, os.Mkdir(dir, 0o755))
		testkit.Build(t, dir, table)
		c.DataOnly = append(c.DataOnly, dir)
	}
}

// find looks a path up.
func (s *site) find(p string) (f Found, err error) {
	dir := path.Dir(p)
	if dir == "." {
		dir = ""
	}
	m := s.dir(dir)
	err = s.lookup(&m.Dir, m, path.Base(p), &f)
	return f, err
}

// textOf reads the data of a metacopy.
func (s *site) textOf(d *Data) (string, error) {
	f, err := s.OpenData(d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 16)
	n, err := f.Pread(buf, 0)
	return string(buf[:n]), err
}

// The data of a metacopy is found by its name or by redirects, layer by layer, and below all layers
// in the data-only layers. text "" stands for EIO: no layer has it.
func TestFindData(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []string // the upper first
		data   []string
		file   string
		text   string
	}{
		{"under its name", []string{"dir p\n" + meta("p/f"), "file p/f data"}, nil, "p/f", "data"},
		{"two layers down", []string{meta("f"), "", "file f data"}, nil, "f", "data"},
		{"under a name beside", []string{meta("p/f", "g"), "file p/g data\nfile p/f no"}, nil, "p/f", "data"},
		{"by a path", []string{meta("p/f", "/q/g"), "file q/g data\nfile p/f no"}, nil, "p/f", "data"},
		{"nowhere", []string{meta("f"), "file g no"}, nil, "f", ""},
		{"below a whiteout", []string{meta("f"), "white f", "file f no"}, nil, "f", ""},
		{"below a marker", []string{meta("f"), "file .wh.f", "file f no"}, nil, "f", ""},
		{"below a directory", []string{meta("f"), "dir f", "file f no"}, nil, "f", ""},
		{"a whiteout in attribute form", []string{meta("f"), "file f\nxattr f trusted.overlay.whiteout y", "file f no"}, nil, "f", ""},
		{"where the directory hides the layers", []string{"opaque p\n" + meta("p/f"), "file p/f no"}, nil, "p/f", ""},
		{"from an opaque directory by a path", []string{"opaque p\n" + meta("p/f", "/p/f"), "file p/f data"}, nil, "p/f", "data"},
		{"through an opaque directory", []string{meta("f", "/p/g"), "opaque p", "file p/g no"}, nil, "f", ""},
		{"through a directory that was renamed", []string{meta("f", "/p/g"), "dir p\nxattr p trusted.overlay.redirect /q", "file q/g data\nfile p/g no"}, nil, "f", "data"},
		{"past a metacopy", []string{meta("f"), meta("f"), "file f data"}, nil, "f", "data"},
		{"on from a metacopy beside", []string{meta("f"), meta("f", "g"), "file g data\nfile f no"}, nil, "f", "data"},
		{"on from a metacopy by a path", []string{meta("p/f"), meta("p/f", "/q/g"), "file q/g data\nfile p/f no"}, nil, "p/f", "data"},
		{"on from a path to a name", []string{meta("f", "/q/g"), meta("q/g", "h"), "file q/h data\nfile q/g no"}, nil, "f", "data"},
		{"of a lower", []string{"", meta("f"), "file f data"}, nil, "f", "data"},
		{"of the lowest", []string{"", meta("f")}, nil, "f", ""},
		{"a data-only layer", []string{"", meta("f", "/o/1")}, []string{"file o/1 data"}, "f", "data"},
		{"the second data-only layer", []string{"", meta("f", "/o/1")}, []string{"dir o", "file o/1 data"}, "f", "data"},
		{"the first of two data-only layers", []string{"", meta("f", "/o/1")}, []string{"file o/1 data", "file o/1 no"}, "f", "data"},
		{"a data-only layer from the upper", []string{meta("f", "/o/1"), ""}, []string{"file o/1 no"}, "f", ""},
		{"a data-only layer on from a metacopy", []string{meta("f"), meta("f", "/o/1")}, []string{"file o/1 data"}, "f", "data"},
		{"a lower goes before data-only layers", []string{meta("f", "/o/1"), "file o/1 data"}, []string{"file o/1 no"}, "f", "data"},
		{"no name leads to data-only layers", []string{"", meta("f")}, []string{"file f no"}, "f", ""},
		{"a data-only layer without it", []string{"", meta("f", "/o/1")}, []string{"dir o"}, "f", ""},
		{"a data-only layer with a directory there", []string{"", meta("f", "/o/1")}, []string{"dir o/1"}, "f", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newFolders(t, c.layers[0], c.layers[1:]...)
			dataOnly(t, &cfg, c.data...)
			cfg.Redirects, cfg.Features.MetaCopy = RedirectsOn, true
			s := openSite(t, cfg)
			f, err := s.find(c.file)
			text := ""
			if err == nil {
				if f.Data == nil {
					t.Fatal("taken for a file with data")
				}
				text, err = s.textOf(f.Data)
			}
			want := error(unix.EIO)
			if c.text != "" {
				want = nil
			}
			if err != want || text != c.text {
				t.Errorf("%q, %v; want %q", text, err, c.text)
			}
			s.shut()
			if strings.Contains(c.layers[1], ".wh.") {
				return // a form that the kernel does not know
			}
			text, err = kernelReads(t, cfg, c.file)
			if err == unix.ENOENT { // the kernel returns it at open if no data-only layer has the data
				err = unix.EIO
			}
			if err != want || text != c.text {
				t.Errorf("the kernel: %q, %v; want %q", text, err, c.text)
			}
		})
	}
}

// kernelReads reads a file on a mount of the kernel's overlayfs.
func kernelReads(t *testing.T, c Config, file string) (string, error) {
	t.Helper()
	mnt := t.TempDir()
	options := "metacopy=on,redirect_dir=on,lowerdir=" + strings.Join(c.Lowers, ":")
	for _, dir := range c.DataOnly {
		options += "::" + dir
	}
	must(t, unix.Mount("overlay", mnt, "overlay", 0, options+",upperdir="+c.Upper+",workdir="+c.Work))
	defer func() { must(t, unix.Unmount(mnt, 0)) }()
	text, err := os.ReadFile(filepath.Join(mnt, file))
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return string(text), err
}

// What only looks like a metacopy is an ordinary file.
func TestFilesWithData(t *testing.T) {
	c := newFolders(t, "file u data\nfile e", "file f data\nfile h\nsize h 4096\nfile x\nxattr x trusted.overlay.redirect /u")
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	for _, name := range []string{"u", "e", "f", "h", "x"} {
		if f, err := s.find(name); err != nil || !f.Exists() || f.Data != nil {
			t.Errorf("%s: %+v, %v", name, f.Data, err)
		}
	}
}

func TestMetacopiesThatAreRefused(t *testing.T) {
	c := newFolders(t, "dir p\nxattr p trusted.overlay.impure y\n"+meta("p/f"), "file p/f data\nfile f data\n"+meta("g", "/o/1")+meta("h"))
	s := openSite(t, c)
	wantErr := func(what, p string, want error) {
		t.Helper()
		if _, err := s.find(p); err != want {
			t.Errorf("%s: %s: %v, want %v", what, p, err, want)
		}
	}
	wantErr("metacopy=off", "p/f", unix.EPERM) // the directory is impure
	wantErr("metacopy=off", "g", unix.EPERM)   // the file is sparse
	dataOnly(t, &s.cfg, "file o/1 data")
	s.remount()
	wantErr("metacopy=off, with data", "p/f", unix.EPERM)
	wantErr("metacopy=off, with data", "h", unix.EPERM)
	wantErr("metacopy=off, with data", "g", nil) // the only way to a data-only layer
	s.cfg.Redirects, s.cfg.Features.MetaCopy = RedirectsOn, true
	upper := filepath.Join(s.cfg.Upper, "p/f")
	for _, redirect := range []string{"a/b", "/", "..", "/a/../b"} {
		must(t, unix.Setxattr(upper, redirectAttr, []byte(redirect), 0))
		s.remount()
		wantErr("redirect "+redirect, "p/f", unix.EINVAL)
	}
	must(t, unix.Removexattr(upper, redirectAttr))
	for _, value := range []string{"\x00", "\x01\x04\x00\x00", "\x00\x04\x01\x00", "\x00\x05\x00\x01", "\x00\x04\x00\x01", "\x00\x05\x00\x00x"} {
		must(t, unix.Setxattr(upper, metacopyAttr, []byte(value), 0))
		s.remount()
		wantErr(fmt.Sprintf("mark %q", value), "p/f", unix.EINVAL)
	}
	must(t, unix.Removexattr(upper, metacopyAttr))
	must(t, unix.Setxattr(upper, "user.overlay.metacopy", nil, 0))
	s.remount()
	wantErr("one that every user may write, for root", "p/f", unix.EPERM)
	must(t, unix.Removexattr(upper, "user.overlay.metacopy"))
	must(t, unix.Setxattr(upper, metacopyAttr, nil, 0))
	must(t, unix.Setxattr(upper, "user.overlay.redirect", []byte("/f"), 0))
	s.remount()
	wantErr("a redirect that every user may write, for root", "p/f", unix.EPERM)
}

// A copy-up for a change of attributes leaves the data in its layer. The first use of data copies
// it.
func TestStageMetacopy(t *testing.T) {
	c := newFolders(t, "", "file f 0750 text\nown f 5 6\nfile empty\nsymlink l f", "")
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	root := s.dir("")
	from, err := root.Layer(1)
	must(t, err)
	stage := func(name string) *Data {
		t.Helper()
		var st sys.Stat
		staged, data, err := s.Stage(&Source{Layer: 1, Path: name, Ref: from.At(name)}, copyup.Hole(), &st)
		must(t, err)
		must(t, staged.Publish(root.upper(), name))
		if file := staged.File(); file != nil {
			file.Close()
		}
		return data
	}
	if stage("empty") != nil || stage("l") != nil {
		t.Error("metacopies of what has no data")
	}
	data := stage("f")
	if data == nil {
		t.Fatal("the data was copied")
	}
	s.remount()
	f, err := s.find("f")
	must(t, err)
	if f.State != InUpper || f.Data == nil || f.Stat.Size != 4 || f.Stat.Uid != 5 || f.Stat.Mode&0o7777 != 0o750 {
		t.Fatalf("%+v", f)
	}
	if *f.Data != *data {
		t.Errorf("the data is told to be in %+v, and after a remount in %+v", data, f.Data)
	}
	to, err := s.dir("").upper().At("f").OpenFile(unix.O_RDWR)
	must(t, err)
	defer to.Close()
	left, err := s.Complete(to, f.Data, copyup.Whole())
	if must(t, err); left != nil {
		t.Errorf("left in %+v", left)
	}
	s.remount()
	if f, err = s.find("f"); err != nil || f.Data != nil || f.Stat.Mode&0o7777 != 0o750 {
		t.Errorf("%+v, %v", f, err)
	}
	if text, err := os.ReadFile(filepath.Join(s.cfg.Upper, "f")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}

// measured makes a digest of a file's text, as fs-verity would; a file whose text begins with a
// dash has none.
func measured(f *sys.File) (sys.Digest, error) {
	buf := make([]byte, 4)
	n, err := f.Pread(buf, 0)
	if strings.HasPrefix(string(buf), "-") {
		return sys.Digest{}, err
	}
	return sys.NewDigest(1, append(buf[:n], make([]byte, 32-n)...)), err
}

func TestVerity(t *testing.T) {
	digest := func(text string) string { return "\x00\x24\x00\x01" + text + strings.Repeat("\x00", 32-len(text)) }
	c := newFolders(t, meta("right")+meta("wrong")+meta("none")+meta("gone"), "file right text\nfile wrong other\nfile none text\nfile gone -ex\nfile new text\nfile bare -ex")
	for name, mark := range map[string]string{"right": digest("text"), "wrong": digest("text"), "gone": digest("text")} {
		must(t, unix.Setxattr(filepath.Join(c.Upper, name), metacopyAttr, []byte(mark), 0))
	}
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	for verity, want := range map[Verity]map[string]error{
		VerityOff:     {"right": nil, "wrong": nil, "none": nil, "gone": nil},
		VerityOn:      {"right": nil, "wrong": unix.EIO, "none": nil, "gone": unix.EIO},
		VerityRequire: {"right": nil, "wrong": unix.EIO, "none": unix.EIO, "gone": unix.EIO},
	} {
		s.cfg.Features.Verity = verity
		s.remount()
		s.digest = measured
		for name, wanted := range want {
			f, err := s.find(name)
			must(t, err)
			if _, err := s.textOf(f.Data); err != wanted {
				t.Errorf("verity %d: %s: %v, want %v", verity, name, err, wanted)
			}
		}
		s.wantDigest("new", verity != VerityOff, true)
		s.wantDigest("bare", false, verity != VerityRequire)
	}
	s.cfg.Features.Verity = VerityOn
	s.remount()
	s.digest = func(*sys.File) (sys.Digest, error) { return sys.Digest{}, unix.ENOMEM }
	f, err := s.find("right")
	must(t, err)
	if _, err := s.textOf(f.Data); err != unix.ENOMEM {
		t.Errorf("a digest that cannot be had: %v", err)
	}
}

// wantDigest stages a metacopy of a lower's file, or a whole copy if metacopy is false. It compares
// the digest in the metacopy xattr.
func (s *site) wantDigest(name string, digest, metacopy bool) {
	s.t.Helper()
	root := s.dir("")
	from, err := root.Layer(1)
	must(s.t, err)
	var st sys.Stat
	staged, data, err := s.Stage(&Source{Layer: 1, Path: name, Ref: from.At(name)}, copyup.Hole(), &st)
	must(s.t, err)
	defer staged.Discard()
	if (data != nil) != metacopy {
		s.t.Fatalf("%s: the data is in %+v", name, data)
	}
	if data == nil {
		return
	}
	value, err := staged.File().Ref().GetXattr(metacopyAttr)
	if must(s.t, err); (len(value) > 0) != digest {
		s.t.Errorf("%s: the mark is %q", name, value)
	}
}

// A file system without fs-verity returns no error and no digest.
func TestNoVerity(t *testing.T) {
	f, err := newSite(t, "").ProbeFile()
	must(t, err)
	defer f.Close()
	if d, err := f.Verity(); err != nil || d != (sys.Digest{}) {
		t.Errorf("%v, %v", d, err)
	}
	sys.SetFault(func(op sys.Op) error { return unix.EIO })
	defer sys.SetFault(nil)
	if _, err := f.Verity(); err != unix.EIO {
		t.Errorf("a failing disk: %v", err)
	}
}
