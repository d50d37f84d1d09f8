package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// deviation is a deliberate difference from the kernel's overlayfs; docs/SEMANTICS.md has the same numbers.
type deviation struct {
	id, what, why string
	// match tells whether the results of an operation differ by this deviation; nil where the comparison leaves
	// the thing out altogether.
	match func(o op, kernel, ours string) bool
}

var deviations = []deviation{
	{"D1", "st_nlink of a merged directory is its number of subdirectories + 2, the kernel shows 1",
		"find(1) and tests of leaf directories get the truth", nil},
	{"D2", "a file opened for writing is copied up at the first write, with writeback=1 when that is written back; the kernel copies up at open",
		"a FUSE server without OPEN requests is not told of the open", nil},
	{"D3", "a mapping made before the copy-up shows the new data, in the kernel it goes on showing the old",
		"all data goes through one inode; POSIX wants the new data", nil},
	{"D4", "sizes and block counts of directories, and ctime, are those of our upper objects",
		"they differ between any two file systems", nil},
	{"D5", "without userxattr both trusted.overlay.* and user.overlay.* are marks, to the kernel only the former",
		"one mount reads what root and what a user namespace has written", nil},
	{"D7", "with writeback=1 a full or failing upper is told at fsync and close, not at write",
		"the kernel collects small writes", nil},
	{"D8", "a file that the daemon may not read fails at read, not at open", "opens are not seen", nil},
	{"D9", "names that begin with .wh. are markers in any layer; to the kernel they are files like others",
		"container engines unpack layers this way", nil},
	{"D10", "a rename onto a directory that is not empty fails and changes nothing; in the kernel it changes the parents' mtime",
		"what fails leaves no trace", nil},
	{"D12", "a directory whose redirect would be too long, renamed onto one that is not empty, is ENOTEMPTY; in the kernel it may be EXDEV",
		"what is not to be is found out before anything is changed",
		func(o op, kernel, ours string) bool {
			return o.name == "rename" && kernel == "EXDEV" && ours == "ENOTEMPTY"
		}},
	{"D13", "numbers are made up as with xino=on whatever xino says", "a FUSE mount has one st_dev", nil},
	{"D14", "statfs shows an f_fsid of the kernel's choice", "a FUSE server is not asked for it", nil},
	{"D11", "with io=passthrough a write by root clears suid and sgid that a file has got since it was opened, the kernel keeps them",
		"the kernel writes with rights that are fixed at the first open; with root's, everybody's writes would keep the bits", nil},
	{"D15", "with metacopy=on an empty file is copied up whole and is renamed and linked always, in the kernel it may be EXDEV",
		"there is no data below to be found again", nil},
	{"D16", "an object of a lower that is removed while it is open has st_nlink 0, in the kernel that of the lower's inode",
		"it has no name any more",
		func(o op, kernel, ours string) bool {
			return o.name == "slot-stat" && strings.Replace(kernel, " nlink 1 ", " nlink 0 ", 1) == ours
		}},
	{"D17", "owner, mode and times of a device, fifo or socket of a lower that is removed while it is open cannot be changed (ENOENT)",
		"a copy of it would need a name", nil},
	{"D18", "with userxattr the names that a device, fifo, socket or symbolic link has got after its copy-up are one object; in the kernel" +
		" several, and a rename from one to another is ESTALE", "only regular files and directories can have such attributes", nil},
	{"D19", "with io=passthrough who has a large lower file open for reading when others write it goes on reading the lower's," +
		" in the kernel only by mapping", "the kernel takes one backing file for an inode at a time", nil},
	{"D20", "from Linux 6.17 on writeback=1 is the default of a mount that can be written", "with writeback=0 appended data would be lost", nil},
	{"D21", "there the first append to a file with suid or sgid may be lost, if a mapping changes its last page meanwhile",
		"the kernel writes through what has to clear these bits", nil},
	{"D22", "an upper whose handles have no UUID is mounted with index=on, and gets them; in the kernel it is ESTALE",
		"an upper of an older host is the same after an upgrade", nil},
	{"D23", "before Linux 6.9 the UUIDs of ext3, ext4, xfs and btrfs alone are known", "the kernel does not tell the rest", nil},
	{"D29", "with writeback=1 truncate(2) to the size that a file has keeps its mtime", "the kernel keeps mtime by itself", nil},
	{"D30", "ro,upperdir= is allowed while another mount writes to the upper", "container engines read the upper of a running container so", nil},
	{"D31", "a second mount under the name fuse-overlayfs can only be read", "two that write would overwrite each other's data", nil},
	{"D32", "a mount that has left the namespace in which it was made hands its upper over, and changes through it are ESTALE",
		"two mounts that write one upper would lose each other's data", nil},
	{"D42", "immutable and append-only files can be opened for writing; each write is EPERM, with writeback=1 perhaps at fsync and close",
		"a FUSE inode has no such flags in the kernel, and opens are not seen", nil},
	{"D44", "what is read from the page cache changes no access time but with strictatime",
		"the kernel does not tell of cached reads", nil},
	{"D45", "fallocate with COLLAPSE_RANGE, INSERT_RANGE or UNSHARE_RANGE is EOPNOTSUPP", "Linux does not send these to a FUSE server", nil},
	{"D46", "syncfs, a remount as read-only and an unmount do not make the upper durable", "Linux does not tell a FUSE server of them", nil},
	{"D47", "with writeback=1 a change of flags shows in st_ctime when nobody has the file open any more",
		"the kernel keeps that time by itself, and does not change it for these ioctls", nil},
	{"D43", "a copy keeps the flag d, the kernel drops it", "it is a file's own as the others are", nil},
	{"D24", "before Linux 6.12 a listing is a request for each 4 KiB", "the kernel asks for a page at a time", nil},
	{"D25", "files of lowers that say size 0 and have data read as empty, but with timeout=0",
		"the kernel reads up to the size it knows, unless OPEN is answered", nil},
	{"D26", "statx tells no attributes, FIEMAP is EOPNOTSUPP, a copy-up does not change the time of birth", "a FUSE server is not asked", nil},
	{"D27", "lowers may be one directory or lie inside each other, in the kernel it is ELOOP", "each shows what it has", nil},
	{"D28", "the listing of a directory that has changed may lack ..", "another listing would end early by the kernel's fault", nil},
	{"D34", "of two directories that lead to one of a lower the second has another number, in the kernel it is ESTALE",
		"both can be used, and copied", nil},
	{"D35", "an impure mark stays, work has mode 0700, and an immutable work directory is refused",
		"a mark that stays costs a look only; nobody else has a use for the staging directory; nothing could be copied up", nil},
	{"D36", "in a user namespace an object whose owner or group is mapped no more than the overflow id can be neither removed nor renamed",
		"a FUSE server shows ids of the mount's namespace", nil},
	{"D37", "before Linux 5.12 each write costs a request for security.capability", "the kernel cannot be told that the daemon clears suid", nil},
	{"D48", "a layer that does not answer stops those who use it, and beyond a thousand such requests all", "each keeps a thread of the daemon", nil},
	{"D49", "a file without a name that is in use takes one of the daemon's descriptors, and beyond the hard limit removals are EMFILE", "layers are reached by descriptors", nil},
	{"D38", "epoll takes regular files", "as on every FUSE file system", nil},
}

// equalise takes back what an operation changed on one side only (D10, D11, D29), so that the comparison can go on.
func equalise(e *env, o op, result string, sides ...*side) {
	if e.has(passthrough) {
		for _, s := range sides {
			s.dropSuid(o)
		}
	}
	if result == sizeWasThat && !e.has("writeback=0") && !e.has(passthrough) {
		at := unix.NsecToTimespec(oldTime.UnixNano())
		for _, s := range sides {
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, s.o.path(o.path), []unix.Timespec{at, at}, 0)
		}
	}
	if o.name != "rename" || result != "ENOTEMPTY" && result != "EXDEV" {
		return
	}
	for _, s := range sides {
		if e.has(redirects) { // the kernel has copied the directory up, and emptied the one in its way of whiteouts
			_ = setTimes(s.o.path(o.path), oldTime)
			if p := s.o.path(o.path2); result == "EXDEV" && unix.Rmdir(p) == nil {
				_ = unix.Mkdir(p, 0o755)
				_ = setTimes(p, oldTime)
			}
		}
		for _, p := range []string{o.path, o.path2} {
			_ = setTimes(filepath.Dir(s.o.path(p)), oldTime)
		}
	}
}

// dropSuid takes the bits away that a write may have taken away.
func (s *side) dropSuid(o op) {
	fd := -1
	switch o.name {
	case "slot-open", "slot-write":
		fd = s.fd[o.slot]
	case "overwrite", "append", "pwrite":
		var err error
		if fd, err = unix.Open(s.o.path(o.path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if fd >= 0 && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		_ = unix.Fchmod(fd, st.Mode&0o1777)
	}
}

// deviates tells whether two results differ by a deviation of the table.
func deviates(o op, kernel, ours string) bool {
	for _, d := range deviations {
		if d.match != nil && d.match(o, kernel, ours) {
			return true
		}
	}
	return false
}

// parts tells whether the sides part here: results differ by D15, D17 or D18, which leaves different things behind.
func parts(e *env, o op, kernel, ours string, right *side) bool {
	var st unix.Stat_t
	switch o.name {
	case "rename", "link":
		if ours != "ok" || unix.Lstat(right.o.path(o.path2), &st) != nil {
			return false
		}
		isFile := st.Mode&unix.S_IFMT == unix.S_IFREG
		return kernel == "EXDEV" && isFile && st.Size == 0 || kernel == "ESTALE" && !isFile && e.has("userxattr")
	case "slot-chmod":
		return kernel == "ok" && ours == "ENOENT" && unix.Fstat(right.fd[o.slot], &st) == nil && st.Nlink == 0 &&
			st.Mode&unix.S_IFMT != unix.S_IFREG
	}
	return false
}

func compareMerged(what string, left, right *side) string {
	v := exact
	want, err := snapshot(left.o.mnt, v)
	if err != nil {
		return what + ": kernel: " + err.Error()
	}
	got, err := snapshot(right.o.mnt, v)
	if err != nil {
		return what + ": ours: " + err.Error()
	}
	if d := diffLines(want, got); d != "" {
		return what + ":\n" + d
	}
	return ""
}

// compareUppers compares what the two mounts left on disk.
func compareUppers(e *env, left, right *side) string {
	want, err := snapshot(left.o.upper, upperView(e, left.o))
	if err != nil {
		return "upper: kernel: " + err.Error()
	}
	got, err := snapshot(right.o.upper, upperView(e, right.o))
	if err != nil {
		return "upper: ours: " + err.Error()
	}
	if d := diffLines(want, got); d != "" {
		return "upper on disk:\n" + d
	}
	return ""
}

// upperView shows an upper in a form that is equal for equal meanings: private attributes that only describe where an
// object came from are left out, and an opaque mark counts only where it hides something.
func upperView(e *env, o *overlay) view {
	v := exact
	v.xattr = func(rel, name string) (string, bool) {
		tail, private := strings.CutPrefix(name, "trusted.overlay.")
		if !private {
			tail, private = strings.CutPrefix(name, "user.overlay.")
		}
		if !private {
			return name, true
		}
		switch tail {
		case "metacopy":
			return "metacopy", isMetacopy(o, rel)
		case "opaque":
			return "opaque", hides(e, o, rel)
		case "origin", "impure", "nlink", "uuid":
			return "", false
		case "redirect": // the kernel leaves one to where the directory lies anyway when a rename fails
			if kindOf(filepath.Join(o.upper, rel)) == unix.S_IFREG && !isMetacopy(o, rel) {
				return "", false
			}
			to, err := getXattr(filepath.Join(o.upper, rel), name)
			return "redirect", err != nil || to != filepath.Base(rel) && to != "/"+filepath.Join(below(o, filepath.Dir(rel)), filepath.Base(rel))
		}
		return name, true
	}
	return v
}

// isMetacopy reports whether the data of a file of the upper lies below. Empty files have none anywhere: we copy them whole.
func isMetacopy(o *overlay, rel string) bool {
	path := filepath.Join(o.upper, rel)
	var st unix.Stat_t
	_, err := getXattr(path, "trusted.overlay.metacopy")
	return err == nil && unix.Lstat(path, &st) == nil && st.Size > 0
}

// below is where the lowers have what lies at a path of the upper, by the redirects of the upper.
func below(o *overlay, rel string) string {
	if rel == "." {
		return rel
	}
	path := filepath.Join(o.upper, rel)
	to, err := getXattr(path, "trusted.overlay.redirect")
	switch {
	case err != nil:
		to = filepath.Base(rel)
	case to[0] == '/':
		return to[1:]
	}
	return filepath.Join(below(o, filepath.Dir(rel)), to)
}

// hides tells whether the lowers have a directory that a directory of the upper at the same path would merge with.
func hides(e *env, o *overlay, rel string) bool {
	layers := o.lowers
	for _, p := range append(parents(rel), rel) {
		if p != rel && isOpaque(filepath.Join(o.upper, p)) {
			return false
		}
		var kept []string
	search:
		for _, layer := range layers {
			path := filepath.Join(layer, below(o, p))
			switch kindOf(path) {
			case 0:
			case unix.S_IFDIR:
				kept = append(kept, layer)
				if isOpaque(path) {
					break search
				}
			default:
				break search
			}
		}
		layers = kept
	}
	return len(layers) > 0
}

// parents lists the proper ancestors of a relative path, the highest first, without the root.
func parents(rel string) []string {
	var list []string
	for p := filepath.Dir(rel); p != "." && p != "/"; p = filepath.Dir(p) {
		list = append([]string{p}, list...)
	}
	return list
}

func kindOf(path string) uint32 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

func isOpaque(path string) bool {
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if v, err := getXattr(path, name); err == nil && v == "y" {
			return true
		}
	}
	return false
}

// identityFaults tells where d_ino is not st_ino, or objects of one mount have different device numbers.
func identityFaults(root string) string {
	var b strings.Builder
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return err.Error()
	}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := listDir(dir, 32<<10)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", dir, err)
			return
		}
		for _, entry := range entries {
			if entry.name == "." || entry.name == ".." {
				continue
			}
			path := filepath.Join(dir, entry.name)
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				fmt.Fprintf(&b, "%s: %v\n", path, err)
				continue
			}
			if st.Ino != entry.ino || st.Dev != top.Dev {
				fmt.Fprintf(&b, "%s: d_ino %d, st_ino %d, st_dev %d of %d\n", path, entry.ino, st.Ino, st.Dev, top.Dev)
			}
			if st.Mode&unix.S_IFMT != uint32(entry.kind)<<12 {
				fmt.Fprintf(&b, "%s: d_type %d, st_mode %o\n", path, entry.kind, st.Mode)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				walk(path)
			}
		}
	}
	walk(root)
	return b.String()
}

func digest(data []byte) string {
	if len(data) < 40 {
		return quote(string(data))
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:8])
}

// dirent is one entry as getdents64 tells it.
type dirent struct {
	name string
	ino  uint64
	off  int64
	kind uint8
}

// listDir lists a directory with a buffer of the given size.
func listDir(dir string, size int) ([]dirent, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []dirent
	for {
		entries, err := getdents(f, size)
		if err != nil || len(entries) == 0 {
			return all, err
		}
		all = append(all, entries...)
	}
}
