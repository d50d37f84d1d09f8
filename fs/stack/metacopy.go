package stack

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// A metacopy is a regular file with attributes and a size, but without data. A layer below has the
// data, under the same name or where the redirect xattr leads
// (Documentation/filesystems/overlayfs.rst, "metacopy"). Below all layers there may be data-only
// layers: they have data for such files, no part in the merged tree, and only a redirect leads
// there.

// Data is where a layer below has the data of a metacopy. It is immutable.
type Data struct {
	// Layer and Path, below that layer's root, are those of the file with the data. If Layer is
	// [DataOnly], one of the data-only layers has it.
	Layer int
	Path  string
	// Redirect is that of a metacopy in the upper; empty: the data is under its own name.
	Redirect string
	// Size is that of the metacopy. The file with the data is longer after an incomplete truncation.
	Size int64
	// Blocks are the 512-byte blocks of the data; if they are unknown, those that Size needs.
	Blocks int64
	// Linked: the lower's object has further names.
	Linked bool

	digest sys.Digest // fs-verity digest that the data must have; zero: unknown
}

// DataOnly stands for the data-only layers.
const DataOnly = -1

// mayLackData reports whether a regular file of a layer may be a metacopy. With metacopy=on or
// data-only layers any file may be one. Otherwise a metacopy is EPERM, as in the kernel, but not
// every file is read for its xattrs: copies lie in impure directories, and a metacopy elsewhere has
// holes.
func (s *Stack) mayLackData(parts []part, layer int, st *sys.Stat) bool {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return false
	case s.FollowsMetacopies():
		return true
	}
	return impureIn(parts, layer) || layer != Upper && st.Blocks*512 < st.Size
}

// FollowsMetacopies reports whether the data of a file may be in another layer.
func (s *Stack) FollowsMetacopies() bool { return s.metacopy || len(s.dataOnly) > 0 }

// lookForData fills in where the data of a metacopy is.
func (s *Stack) lookForData(parts []part, o LayerDirs, name string, layer int, f *Found) error {
	if !s.mayLackData(parts, layer, &f.Stat) {
		return nil
	}
	h, err := o.Layer(layer)
	if err != nil {
		return err
	}
	return s.readData(parts, o, name, layer, h.At(name), f)
}

// readData fills in where the data of r is, if r is a metacopy. A layer has r under a name.
func (s *Stack) readData(parts []part, o LayerDirs, name string, layer int, r sys.Ref, f *Found) error {
	m, err := s.names.ReadFile(r)
	if err == unix.ENOENT || err == nil && !m.Metacopy {
		return nil
	}
	if err == nil {
		f.Data, err = s.findData(parts, o, name, layer, &m, &f.Stat)
	}
	return err
}

// findData looks for the data of a metacopy. It returns EIO if no layer has the data, EPERM if the
// metacopy must not be followed, and EINVAL for an invalid redirect. Compare ovl_lookup of
// fs/overlayfs/namei.c.
func (s *Stack) findData(
	parts []part, o LayerDirs, name string, layer int, m *ondisk.FileXattrs, st *sys.Stat,
) (*Data, error) {
	w := redirectWalk{s: s, to: cmp.Or(m.Redirect, name), file: true}
	switch {
	case m.ByUser && !s.followsUsers(layer):
		return nil, unix.EPERM
	case !ondisk.ValidRedirect(w.to):
		return nil, unix.EINVAL
	case s.metacopy:
	case layer == Upper || len(s.dataOnly) == 0 || !w.absolute():
		// A lower may lead to data-only layers without metacopy=on.
		return nil, unix.EPERM
	}
	inLower := layer != Upper
	data := &Data{Redirect: m.Redirect, Size: st.Size, digest: m.Digest}
	for below := layer + 1; s.metacopy && below < len(s.layers) && !w.stop; below++ {
		base := ""
		if !w.absolute() {
			if !slices.ContainsFunc(parts, func(p part) bool { return int(p.layer) == below }) {
				continue
			}
			base = o.Path(below)
		}
		where, found, err := w.look(below, base)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		inLower, data.Linked = true, data.Linked || w.st.Nlink > 1
		if !w.metacopy {
			data.Layer, data.Path, data.Blocks = below, where, w.st.Blocks
			return data, nil
		}
	}
	if !inLower || !w.absolute() || len(s.dataOnly) == 0 { // data-only layers belong to files of lowers
		return nil, unix.EIO
	}
	data.Layer, data.Path, data.Blocks = DataOnly, strings.TrimPrefix(w.to, "/"), (st.Size+511)/512
	return data, nil
}

// lookForFile looks for the file at the end of the walk in the directory h of a layer, and returns
// its redirect.
func (w *redirectWalk) lookForFile(h *sys.Dir, layer int, name string) (m whiteout.DirXattrs, found bool, err error) {
	var st sys.Stat
	if exists, err := w.stat(h, layer, name, &st); !exists {
		return m, false, err
	}
	r := h.At(name)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		w.stop = true
		return m, false, nil
	}
	absent, err := whiteout.IsXattrWhiteout(w.s.names, r, &st)
	if absent || err != nil {
		w.stop = absent
		return m, false, err
	}
	of, err := w.s.names.ReadFile(r)
	if err == nil && of.ByUser && !w.s.followsUsers(layer) {
		err = unix.EPERM
	}
	w.metacopy, w.st = of.Metacopy, st
	return whiteout.DirXattrs{DirXattrs: ondisk.DirXattrs{Redirect: of.Redirect, ByUser: of.ByUser}}, true, err
}

// OpenData opens the file with the data of a metacopy for reading. It returns EIO if there is no
// such file, or if it has another digest.
func (s *Stack) OpenData(d *Data) (*sys.File, error) {
	f, err := s.openData(d)
	switch {
	case ignoreGone(err) != nil:
		return nil, err
	case err != nil:
		return nil, unix.EIO
	}
	if err := s.verify(f, d.digest); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Stack) openData(d *Data) (f *sys.File, err error) {
	if d.Layer != DataOnly {
		return openAt(s.Root(d.Layer), d.Path)
	}
	err = unix.ENOENT
	for _, root := range s.dataOnly {
		if f, err = openAt(root, d.Path); err == nil || ignoreGone(err) != nil {
			break
		}
	}
	return f, err
}

// openAt opens a regular file of a layer.
func openAt(root *sys.Dir, where string) (*sys.File, error) {
	dir, name := path.Split(where)
	h, err := root.OpenDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var st sys.Stat
	if err := h.At(name).Stat(&st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EIO
	}
	return h.At(name).OpenFile(unix.O_RDONLY)
}

// verify compares a file's digest with that of its metacopy (ovl_validate_verity).
func (s *Stack) verify(f *sys.File, want sys.Digest) error {
	if s.verity == VerityOff || s.verity == VerityOn && want == (sys.Digest{}) {
		return nil
	}
	got, err := s.digest(f)
	if err == nil && (want == sys.Digest{} || got != want) {
		err = unix.EIO
	}
	return err
}

// Source is the object of a lower that is copied up. Path lies below its layer's root. Data is
// where its data is; nil: in it.
type Source struct {
	Layer int
	Path  string
	Ref   sys.Ref
	Data  *Data
	// Shared: the copy is for the index.
	Shared *Shared
}

// Stage begins the copy-up of an object of a lower, and fills st with its attributes; see
// [copyup.Copier.Stage]. amount is how much data is needed. With [copyup.Hole] the copy may be a
// metacopy: then data is where its data is. Otherwise data is nil.
func (s *Stack) Stage(src *Source, amount copyup.Amount, st *sys.Stat) (staged *copyup.Staged, data *Data, err error) {
	from := s.layers[src.Layer].onDisk.On(src.Ref)
	if err := from.Stat(st); err != nil {
		return nil, nil, err
	}
	if amount == copyup.Hole() {
		if data, err = s.metacopyOf(src, st); err != nil {
			return nil, nil, err
		}
		if data != nil {
			name, value := s.xattrs.MetacopyXattr(data.digest)
			marks := append(s.nlinkXattrs(src.Shared), copyup.Xattr{Name: name, Value: value})
			staged, err = s.copier.Stage(from, st, copyup.Data{Amount: amount}, marks...)
			return staged, data, err
		}
		amount = copyup.Whole()
	}
	content := copyup.Data{Amount: amount}
	if src.Data != nil && amount != copyup.First(0) {
		if content.From, err = s.OpenData(src.Data); err != nil {
			return nil, nil, err
		}
		defer content.From.Close()
	}
	staged, err = s.copier.Stage(from, st, content, s.nlinkXattrs(src.Shared)...)
	return staged, nil, err
}

// metacopyOf returns where the data of a metacopy of src will be. It returns nil if the copy has to
// be whole (ovl_need_meta_copy_up): src has no data, or no digest though one is required.
func (s *Stack) metacopyOf(src *Source, st *sys.Stat) (*Data, error) {
	if !s.metacopy || s.xattrs == ondisk.NoXattrs || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return nil, nil
	}
	data := Data{Layer: src.Layer, Path: src.Path, Size: st.Size, Blocks: st.Blocks, Linked: st.Nlink > 1}
	if src.Data != nil {
		data = *src.Data
		data.Redirect, data.digest = "", sys.Digest{}
		data.Linked = st.Nlink > 1
	}
	if s.verity == VerityOff {
		return &data, nil
	}
	f, err := s.openData(&data)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if data.digest, err = s.digest(f); err != nil || data.digest == (sys.Digest{}) && s.verity == VerityRequire {
		return nil, err
	}
	return &data, nil
}

// Complete copies the data of a metacopy in the upper into it: an amount of it; see
// [copyup.Copier.Complete]. left is where its data is afterwards; nil: in it.
func (s *Stack) Complete(to *sys.File, d *Data, amount copyup.Amount) (left *Data, err error) {
	from, err := s.OpenData(d)
	if err != nil {
		return d, err
	}
	defer from.Close()
	marker, _ := s.xattrs.MetacopyXattr(sys.Digest{})
	if err := s.copier.Complete(to, from, amount, marker); err != nil {
		cut := *d
		var st sys.Stat
		if to.Ref().Stat(&st) == nil { // the copy may be complete, in spite of the error
			cut.Size = st.Size
		}
		return &cut, err
	}
	return nil, nil
}

// Within returns how many of n bytes at an offset lie within Size.
func (d *Data) Within(off int64, n int) int { return int(max(0, min(int64(n), d.Size-off))) }

// Redirected returns d with the new redirect of a metacopy in the upper.
func (d *Data) Redirected(redirect string) *Data {
	moved := *d
	moved.Redirect = redirect
	return &moved
}

// SetRedirect writes the redirect of a metacopy in the upper.
func (s *Stack) SetRedirect(r sys.Ref, redirect string) error {
	return s.xattrs.SetRedirect(r, redirect)
}
