package kills

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// found is an object of a mount.
type found struct {
	st     unix.Stat_t
	data   []byte
	target string
	xattrs map[string]string
}

// ownName matches the names of processes, and contains the number of the process.
var ownName = regexp.MustCompile(`^w(\d)-[a-z]\d*$`)

// look finds all objects of a mount, by process. A name that no process has given is a fault.
//
// cut: what can be read behind st_size is left out. The kernel's overlayfs shows that of a
// metacopy of which a truncation was in flight: the size is the new one, the data is still that of
// the lower.
func look(root string, cut bool) (byProcess map[string]map[string]*found, err error) {
	byProcess = map[string]map[string]*found{}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || slices.Contains(sharedDirs, rel) {
			return err
		}
		f, err := lookAt(path, cut)
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		id, ok := processOf(rel)
		if !ok {
			return fmt.Errorf("%s: no process has made this name", rel)
		}
		if byProcess[id] == nil {
			byProcess[id] = map[string]*found{}
		}
		byProcess[id][rel] = f
		return nil
	})
	return byProcess, err
}

// processOf is the number of the process to which a name belongs: the first name on the path that
// is not a shared directory, and all below, are those of one process.
func processOf(rel string) (id string, ok bool) {
	for name := range strings.SplitSeq(rel, "/") {
		m := ownName.FindStringSubmatch(name)
		if m == nil {
			if id == "" && regexp.MustCompile(`^[st]\d$`).MatchString(name) {
				continue
			}
			return "", false
		}
		if id != "" && m[1] != id {
			return "", false
		}
		id = m[1]
	}
	return id, id != ""
}

func lookAt(path string, cut bool) (*found, error) {
	f := &found{xattrs: map[string]string{}}
	if err := unix.Lstat(path, &f.st); err != nil {
		return nil, err
	}
	var err error
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if f.data, err = os.ReadFile(path); err == nil && cut {
			f.data = f.data[:min(int64(len(f.data)), f.st.Size)]
		}
		if err == nil && int64(len(f.data)) != f.st.Size {
			err = fmt.Errorf("st_size is %d, and %d bytes can be read", f.st.Size, len(f.data))
		}
	case unix.S_IFLNK:
		f.target, err = os.Readlink(path)
	}
	if err != nil {
		return nil, err
	}
	names, err := harness.XattrNames(path)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "user.") || name == "trusted.t" {
			if f.xattrs[name], err = harness.GetXattr(path, name); err != nil {
				return nil, fmt.Errorf("xattr %s: %w", name, err)
			}
		}
	}
	return f, nil
}

// differs describes how an object differs from what it must be, or is empty.
func (f *found) differs(o *object) string {
	if f.st.Mode&unix.S_IFMT != o.Kind {
		return fmt.Sprintf("is of kind %o, not %o", f.st.Mode&unix.S_IFMT, o.Kind)
	}
	var list []string
	if mode := f.st.Mode & 0o7777; mode != o.Mode && o.Kind != unix.S_IFLNK {
		list = append(list, fmt.Sprintf("mode %o, not %o", mode, o.Mode))
	}
	if f.st.Uid != uint32(o.UID) || f.st.Gid != uint32(o.GID) {
		list = append(list, fmt.Sprintf("owner %d:%d, not %d:%d", f.st.Uid, f.st.Gid, o.UID, o.GID))
	}
	if f.target != o.Target {
		list = append(list, fmt.Sprintf("target %q, not %q", f.target, o.Target))
	}
	if !maps.Equal(f.xattrs, o.Xattrs) {
		list = append(list, fmt.Sprintf("xattrs %.90q, not %.90q", fmt.Sprint(f.xattrs), fmt.Sprint(o.Xattrs)))
	}
	if o.isFile() && !o.mayHold(f.data) {
		list = append(list, fmt.Sprintf("%d bytes %s, not %d bytes %s or one of %d earlier contents", len(f.data), harness.Digest(f.data),
			len(o.Data), harness.Digest(o.Data), len(o.Before)))
	}
	if o.Mtime != 0 && !o.isDir() && o.certain() && f.st.Mtim.Sec != o.Mtime {
		list = append(list, fmt.Sprintf("mtime %d, not %d", f.st.Mtim.Sec, o.Mtime))
	}
	return strings.Join(list, ", ")
}

// compare lists how the objects of a process differ from a tree.
func compare(t *tree, have map[string]*found) (faults []string) {
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if t.at(p) == nil {
			faults = append(faults, p+": there, and must not be")
		}
	}
	inodes := map[int]uint64{}
	for _, p := range t.paths() {
		f := have[p]
		if f == nil {
			faults = append(faults, p+": not there")
			continue
		}
		o := t.at(p)
		if d := f.differs(o); d != "" {
			faults = append(faults, p+": "+d)
		}
		if o.isDir() || o.InLower && !t.Indexed || !o.certain() { // the last may not have been copied up
			continue
		}
		if n := t.links(o); int(f.st.Nlink) != n {
			faults = append(faults, fmt.Sprintf("%s: %d links, not %d", p, f.st.Nlink, n))
		}
		if o.InLower && !t.Handles {
			continue
		}
		i := t.Names[p]
		if other, ok := inodes[i]; ok && other != f.st.Ino {
			faults = append(faults, p+": not one object with its other names")
		}
		inodes[i] = f.st.Ino
	}
	return faults
}

// adopt makes of what a file may hold what it holds. If a name of a linked lower file was not
// copied up, it still is one.
func (t *tree) adopt(have map[string]*found) {
	for p, i := range t.Names {
		if o := t.Objects[i]; !o.certain() {
			o.Data, o.Mtime = have[p].data, 0
			o.InLower = o.InLower || int(have[p].st.Nlink) > t.links(o)
			o.sync()
		}
	}
	t.closeAll()
	t.compact()
}

// foreignNames lists the names of an upper that are not those of a process, of a shared directory,
// or of a whiteout of one.
func foreignNames(upper string) (list []string, err error) {
	err = filepath.WalkDir(upper, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == upper {
			return err
		}
		rel, err := filepath.Rel(upper, path)
		if err != nil {
			return err
		}
		base := filepath.Base(rel)
		if base == ".wh..wh..opq" {
			return nil
		}
		rel = filepath.Join(filepath.Dir(rel), strings.TrimPrefix(base, ".wh."))
		if _, ok := processOf(rel); !ok && !slices.Contains(sharedDirs, rel) {
			list = append(list, rel)
		}
		return nil
	})
	return list, err
}
