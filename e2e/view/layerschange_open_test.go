package view

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// An open file remains the object that was opened, or its requests fail with ESTALE. A write to it
// does not reach the object that has taken its name.
func TestWhatIsOpenWhileLayersChange(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := mountChanging(e, t, "file f \"first text\"\nfile g \"first text\"\nfile h \"first text\"\nfile d/in in")
		read := func(f *os.File) string {
			buf := make([]byte, 100)
			n, _ := f.ReadAt(buf, 0)
			return string(buf[:n])
		}
		f, g, h := harness.Open(t, o.Path("f"), os.O_RDWR), harness.Open(t, o.Path("g"), os.O_RDWR),
			harness.Open(t, o.Path("h"), os.O_RDWR)
		d := harness.Open(t, o.Path("d"), os.O_RDONLY)
		defer f.Close()
		defer g.Close()
		defer h.Close()
		defer d.Close()
		upper := e.Has(harness.Passthrough) // where OPEN copies up
		layer := 1
		if upper {
			layer = 0
		}
		replace(t, layerPath(o, layer, "f"), "second text")
		harness.Check(t, os.Remove(layerPath(o, layer, "g")))
		harness.Write(t, layerPath(o, 0, "h"), "third text")
		harness.Check(t, os.RemoveAll(layerPath(o, 1, "d")))
		harness.WantText(t, o.Path("f"), "second text")
		for name, file := range map[string]*os.File{"f": f, "g": g} {
			if got := read(file); got != "first text" {
				t.Errorf("%s, open, reads as %q", name, got)
			}
			harness.Equal(t, "size of "+name, harness.Fstat(t, file).Size, int64(len("first text")))
		}
		if !upper {
			for _, file := range []*os.File{f, h} {
				if _, err := file.WriteAt([]byte("WRITTEN"), 0); err != nil {
					harness.WantErr(t, "write", err, syscall.ESTALE)
				}
			}
			harness.WantText(t, o.Path("h"), "third text")
			harness.WantText(t, o.Upper+"/h", "third text")
			harness.WantText(t, o.Lowers[0]+"/h", "first text")
		}
		harness.WantText(t, o.Path("f"), "second text")
		harness.WantText(t, layerPath(o, layer, "f"), "second text")
		if _, err := d.ReadDir(-1); err != nil {
			harness.WantErr(t, "listing", err, syscall.ESTALE, syscall.ENOENT)
		}
		harness.WantErr(t, "a file in a removed directory", os.WriteFile(o.Path("d/new"), nil, 0o644), syscall.ENOENT)
		wantAsFresh(o, "after all")
	})
}

// A process whose working directory is in the mount sees changes of layers by relative paths.
func TestWorkingDirectoryWhileLayersChange(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := mountChanging(e, t, "file d/sub/one 1", "dir d")
		d := harness.Open(t, o.Path("d/sub"), os.O_RDONLY)
		defer d.Close()
		harness.Mkdir(t, layerPath(o, 2, "d/sub"), layerPath(o, 0, "d"), layerPath(o, 0, "d/sub"))
		harness.Write(t, layerPath(o, 2, "d/sub/two"), "2")
		harness.Write(t, layerPath(o, 0, "d/sub/three"), "3")
		names, err := d.Readdirnames(-1)
		harness.Check(t, err)
		harness.Equal(t, "names", len(names), 3)
		for _, name := range []string{"one", "two", "three"} {
			f, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY, 0)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			harness.Check(t, unix.Close(f))
		}
	})
}

// A read-only mount of an upper shows the changes that another mount makes there.
func TestReaderSeesWhatTheWriterDoes(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/sub/f \"lower\"\nfile d/g \"lower\"\nfile gone \"x\"", "file d/below \"b\"")
		reader := o.Second(t, "ro")
		reader.Mount()
		same := func(what string) {
			t.Helper()
			harness.CompareTrees(t, what, o.Point, reader.Point, harness.View{Mode: true, Owner: true, Xattrs: true,
				Mtime: true})
		}
		same("before")
		for _, step := range []struct {
			what string
			do   func()
		}{
			{"append", func() { harness.AppendTo(t, o.Path("d/sub/f"), " and upper") }},
			{"write", func() { harness.Write(t, o.Path("d/sub/f"), "UPPER AND LOWER") }},
			{"remove", func() { harness.Check(t, os.Remove(o.Path("gone"))) }},
			{"make again", func() { harness.Write(t, o.Path("gone"), "again") }},
			{"remove all", func() { harness.Check(t, os.RemoveAll(o.Path("d/sub"))) }},
			{"make a directory", func() { harness.Mkdir(t, o.Path("d/sub")); harness.Write(t, o.Path("d/sub/new"), "n") }},
			{"rename", func() { harness.Check(t, os.Rename(o.Path("d/g"), o.Path("d/sub/g"))) }},
			{"chmod", func() { harness.Check(t, os.Chmod(o.Path("d/below"), 0o600)) }},
			{"replace", func() { replace(t, o.Path("d/below"), "another") }},
		} {
			step.do()
			syncAll(t, o.Point)
			same(step.what)
		}
		reader.Unmount()
	})
}
