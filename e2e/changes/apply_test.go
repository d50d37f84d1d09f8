package changes

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// apply applies a layer to a tree by the rules of the image specification (image-spec, layer.md,
// "Applying changesets"). It is for layers of this program only, which are not hostile.
func apply(t *testing.T, archive, tree string) {
	t.Helper()
	f, err := os.Open(archive)
	harness.Check(t, err)
	defer f.Close()
	a := applier{tree: tree, added: map[string]bool{}}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		harness.Check(t, err)
		if err := a.entry(h, r); err != nil {
			t.Fatalf("applying %q: %v", h.Name, err)
		}
	}
	for i := len(a.dirs) - 1; i >= 0; i-- {
		harness.Check(t, setTime(a.path(a.dirs[i].Name), a.dirs[i]))
	}
}

// applier is a layer that is being applied.
type applier struct {
	tree  string
	added map[string]bool // names that the layer has
	dirs  []*tar.Header   // their times are set at the end
}

func (a *applier) path(name string) string { return filepath.Join(a.tree, name) }

func (a *applier) entry(h *tar.Header, r io.Reader) error {
	name := filepath.Clean(h.Name)
	dir, base := filepath.Split(name)
	if base == ".wh..wh..opq" {
		return a.empty(dir)
	}
	if gone, ok := strings.CutPrefix(base, ".wh."); ok {
		if _, err := os.Lstat(a.path(dir + gone)); err != nil {
			return err // the layer deletes what is not there
		}
		return os.RemoveAll(a.path(dir + gone))
	}
	a.added[name] = true
	path := a.path(name)
	st, err := os.Lstat(path)
	isDir := h.Typeflag == tar.TypeDir
	if err == nil && !(isDir && st.IsDir()) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := a.make(path, h, r); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	if err := attributes(path, h); err != nil {
		return err
	}
	if isDir {
		a.dirs = append(a.dirs, h)
		return nil
	}
	return setTime(path, h)
}

// empty removes from a directory what the layer has not.
func (a *applier) empty(dir string) error {
	entries, err := os.ReadDir(a.path(dir))
	for _, e := range entries {
		if !a.added[filepath.Join(dir, e.Name())] {
			err = errors.Join(err, os.RemoveAll(a.path(filepath.Join(dir, e.Name()))))
		}
	}
	return err
}

func (a *applier) make(path string, h *tar.Header, r io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	dev := int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.Mkdir(path, 0o700); !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	case tar.TypeLink:
		return os.Link(a.path(h.Linkname), path)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeFifo:
		return unix.Mkfifo(path, mode)
	case tar.TypeChar:
		return unix.Mknod(path, unix.S_IFCHR|mode, dev)
	case tar.TypeBlock:
		return unix.Mknod(path, unix.S_IFBLK|mode, dev)
	}
	return fmt.Errorf("entry of type %q", h.Typeflag)
}

// attributes sets owner, mode and extended attributes.
func attributes(path string, h *tar.Header) error {
	if err := os.Lchown(path, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(path, uint32(h.Mode)&0o7777); err != nil {
			return err
		}
	}
	names, err := harness.XattrNames(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, kept := h.PAXRecords["SCHILY.xattr."+name]; !kept {
			if err := unix.Lremovexattr(path, name); err != nil {
				return err
			}
		}
	}
	for record, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(record, "SCHILY.xattr."); ok {
			if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func setTime(path string, h *tar.Header) error {
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}
