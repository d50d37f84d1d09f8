package differential

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// deviation is a deliberate difference from the kernel's overlayfs. docs/SEMANTICS.md has the same
// numbers.
type deviation struct {
	id, what, why string
	// match reports whether the results of an operation differ by this deviation. It is nil if the
	// comparison leaves out all that the deviation is about.
	match func(o operation.Op, kernel, ours string) bool
}

var deviations = []deviation{
	{"D1", "st_nlink of a merged directory is its number of subdirectories + 2, the kernel shows 1",
		"find(1) and tests of leaf directories get the truth", nil},
	{"D2", "a file opened for writing is copied up at the first write, with writeback=1 when that is written back; the kernel copies up at open",
		"a FUSE server without OPEN requests does not see the open", nil},
	{"D3", "a mapping made before the copy-up shows the new data, in the kernel the old",
		"all data goes through one inode; POSIX wants the new data", nil},
	{"D4", "sizes and block counts of directories, and ctime, are those of the upper objects",
		"they differ between any two file systems", nil},
	{"D5", "without userxattr both trusted.overlay.* and user.overlay.* are overlay xattrs, to the kernel only the former",
		"one mount reads what root and what a user namespace has written", nil},
	{"D7", "with writeback=1 the error of a full or failing upper is returned by fsync and close, not by write",
		"the kernel collects small writes", nil},
	{"D8", "a file that the daemon may not read fails at read, not at open", "the daemon sees no opens", nil},
	{"D9", "names that begin with .wh. are whiteouts in any layer, in the kernel they are files like others",
		"container engines unpack layers this way", nil},
	{"D10", "a rename onto a directory that is not empty fails and changes nothing; in the kernel it changes the parents' mtime",
		"an operation that fails changes nothing", nil},
	{"D12", "a directory whose redirect would be too long, renamed onto one that is not empty, is ENOTEMPTY; in the kernel it may be EXDEV",
		"the error is found before the first change",
		func(o operation.Op, kernel, ours string) bool {
			return o.Name == "rename" && kernel == "EXDEV" && ours == "ENOTEMPTY"
		}},
	{"D13", "inode numbers are composed as with xino=on, whatever the value of xino", "a FUSE mount has one st_dev", nil},
	{"D14", "statfs shows an f_fsid of the kernel's choice", "the kernel does not request it of a FUSE server", nil},
	{"D11", "with io=passthrough a write by root clears suid and sgid that a file has got since it was opened, the kernel keeps them",
		"the kernel writes with the rights of the first open; with those of root, the writes of all users would keep the bits", nil},
	{"D15", "with metacopy=on an empty file is copied up whole and is renamed and linked always, in the kernel it may be EXDEV",
		"there is no data in a lower", nil},
	{"D16", "an object of a lower that is removed while it is open has st_nlink 0, in the kernel that of the lower's inode",
		"it has no name any more",
		func(o operation.Op, kernel, ours string) bool {
			return o.Name == "slot-stat" && strings.Replace(kernel, " nlink 1 ", " nlink 0 ", 1) == ours
		}},
	{"D17", "owner, mode and times of a device, fifo or socket of a lower that is removed while it is open cannot be changed (ENOENT)",
		"a copy of it would need a name", nil},
	{"D18", "with userxattr the names that a device, fifo, socket or symbolic link has got after its copy-up are one object; in the kernel" +
		" several, and a rename from one to another is ESTALE",
		"only regular files and directories can have such attributes", nil},
	{"D19", "with io=passthrough a process that has a large lower file open for reading while others write it reads the data of the lower," +
		" in the kernel only by mapping", "the kernel takes one backing file for an inode at a time", nil},
	{"D20", "from Linux 6.17 on writeback=1 is the default of a mount that can be written",
		"with writeback=0 appended data would be lost", nil},
	{"D21", "there the first append to a file with suid or sgid may be lost, if a mapping changes its last page at that time",
		"the kernel writes through if it has to clear these bits", nil},
	{"D22", "an upper whose handles have no UUID is mounted with index=on, and gets them; in the kernel it is ESTALE",
		"an upper of an older host is the same after an upgrade", nil},
	{"D23", "before Linux 6.9 the UUIDs of ext3, ext4, xfs and btrfs alone are known",
		"the kernel does not report the others", nil},
	{"D29", "with writeback=1 truncate(2) to the size that a file has keeps its mtime",
		"the kernel keeps mtime by itself", nil},
	{"D30", "ro,upperdir= is allowed while another mount writes to the upper",
		"container engines read the upper of a running container so", nil},
	{"D31", "a second mount under the name fuse-overlayfs can only be read",
		"two that write would overwrite each other's data", nil},
	{"D32", "a mount that has left the namespace in which it was made hands its upper over, and changes through it are ESTALE",
		"two mounts that write one upper would lose each other's data", nil},
	{"D42", "immutable and append-only files can be opened for writing; each write is EPERM, with writeback=1 perhaps at fsync and close",
		"a FUSE inode has no such flags in the kernel, and the daemon sees no opens", nil},
	{"D44", "what is read from the page cache changes no access time but with strictatime",
		"the kernel sends no request for cached reads", nil},
	{"D45", "fallocate with COLLAPSE_RANGE, INSERT_RANGE or UNSHARE_RANGE is EOPNOTSUPP",
		"Linux does not send these to a FUSE server", nil},
	{"D46", "syncfs, a remount as read-only and an unmount do not make the upper durable",
		"Linux sends a FUSE server no request for them", nil},
	{"D47", "with writeback=1 a change of flags shows in st_ctime when no process has the file open any more",
		"the kernel keeps that time by itself, and does not change it for these ioctls", nil},
	{"D43", "a copy keeps the flag d, the kernel drops it", "it belongs to the file as the other flags do", nil},
	{"D24", "before Linux 6.12 a listing is a request for each 4 KiB", "the kernel requests a page at a time", nil},
	{"D25", "files of lowers with data but st_size 0 read as empty, but with timeout=0",
		"the kernel reads up to the size it knows, unless the daemon replies to OPEN", nil},
	{"D26", "statx returns no attributes, FIEMAP is EOPNOTSUPP, a copy-up does not change the time of birth",
		"the kernel requests none of a FUSE server", nil},
	{"D27", "lowers may be one directory or lie inside each other, in the kernel it is ELOOP",
		"each shows its own objects", nil},
	{"D34", "of two directories that lead to one of a lower the second has another number, in the kernel it is ESTALE",
		"both can be used, and copied", nil},
	{"D35", "an impure xattr stays, work has mode 0700, and an immutable work directory is refused",
		"the xattr costs a lookup only; no other user needs the staging directory; nothing could be copied up", nil},
	{"D36", "in a user namespace an object whose owner or group is mapped no more than the overflow id can be neither removed nor renamed",
		"a FUSE server shows ids of the mount's namespace", nil},
	{"D37", "before Linux 5.12 each write costs a request for security.capability",
		"the daemon cannot announce that it clears suid", nil},
	{"D48", "a layer that does not reply stops its users, and beyond a thousand such requests all users of the mount",
		"each occupies a thread of the daemon", nil},
	{"D49", "an unlinked file that is open takes one of the daemon's descriptors, and beyond the hard limit removals are EMFILE", "layers are reached by descriptors", nil},
	{"D73", "with SELinux all objects of a mount have one label",
		"the kernel reads no labels from a FUSE server", nil},
	{"D74", "with SELinux a new object in the upper has the label of one that the daemon makes",
		"the daemon makes the objects", nil},
	{"D50", "before Linux 5.15 fallocate with ZERO_RANGE is EOPNOTSUPP", "the kernel does not send it",
		func(o operation.Op, kernel, ours string) bool {
			return o.Name == "slot-fallocate" && o.N&unix.FALLOC_FL_ZERO_RANGE != 0 && ours == "ENOTSUP" && zeroRangeMissing()
		}},
	{"D38", "epoll takes regular files", "as on every FUSE file system", nil},
	{"D62", "names that change in the layers without timeout=0 are as the daemon has read them",
		"a lookup costs no system call in each layer", nil},
	{"D63", "an upper may lie on another overlay", "containers run containers", nil},
	{"D64", "with index=on a change through a second name of a linked file does not make that name a link in the upper",
		"a FUSE server receives the file, not the name", nil},
	{"D75", "before Linux 6.16 a range of a page that fallocate clears can get its old bytes back beside a mapping",
		"the kernel writes back copies of pages", nil},
	{"D76", "with writeback=1 st_ctime grows when the kernel writes back, and a time is limited to what the upper holds later",
		"the kernel keeps the times of such files itself", nil},
	{"D77", "a handle of a file is stale when the kernel has dropped the inode",
		"it contains the number of the daemon's node", nil},
	{"D78", "a mount by which an engine reads layers without xattrs returns EOPNOTSUPP for them",
		"the kernel keeps no answer to a request for an xattr", nil},
	{"D79", "a mount that was made with ro cannot become writable",
		"other mounts may use its upper", nil},
	{"D80", "the daemon has fewer rights than the process that mounts",
		"a fault of the daemon must not give its rights away", nil},
	{"D81", "without more threads a layer that does not answer can stop all requests",
		"the daemon needs a thread for each call that waits", nil},
	{"D82", "a chown to neither an owner nor a group keeps suid and sgid; a write through a mapping clears them",
		"the kernel does not send such a chown, and writes pages back by a daemon that clears both", nil},
	{"D83", "a write by a mapping changes st_mtime after a time was set, also if the page was dirty;" +
		" without the writeback cache it does so when the kernel writes the page back",
		"the kernel writes back before it sets a time, or leaves times to the daemon", nil},
	{"D84", "with supervise, a listing that is read when the daemon dies may miss or repeat names that change",
		"the next process reads the directory again", nil},
	{"D65", "umount returns before the daemon has closed the layers",
		"the kernel does not wait for a FUSE server", nil},
}

// equalise reverts what an operation has changed on one side only (D10, D11, D29, D82), so that the
// comparison can continue.
func equalise(e *harness.Env, o operation.Op, result string, sides ...*operation.Side) {
	byMapping := o.Name == "mapwrite" || o.Name == "slot-mapwrite"
	if e.Has(harness.Passthrough) || byMapping && e.Mode != harness.ModeRoot {
		for _, s := range sides {
			s.DropSuid(o)
		}
	}
	if result == operation.SizeUnchanged && !e.Has("writeback=0") && !e.Has(harness.Passthrough) {
		at := unix.NsecToTimespec(harness.OldTime.UnixNano())
		for _, s := range sides {
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, s.Overlay.Path(o.Path), []unix.Timespec{at, at}, 0)
		}
	}
	if o.Name != "rename" || result != "ENOTEMPTY" && result != "EXDEV" {
		return
	}
	for _, s := range sides {
		if e.Has(harness.Redirects) { // the kernel has copied the directory up, and emptied the one in its way of whiteouts
			_ = harness.SetTimes(s.Overlay.Path(o.Path), harness.OldTime)
			if p := s.Overlay.Path(o.Path2); result == "EXDEV" && unix.Rmdir(p) == nil {
				_ = unix.Mkdir(p, 0o755)
				_ = harness.SetTimes(p, harness.OldTime)
			}
		}
		for _, p := range []string{o.Path, o.Path2} {
			_ = harness.SetTimes(filepath.Dir(s.Overlay.Path(p)), harness.OldTime)
		}
	}
}

// writeMappedBack writes the page of a slot-mapwrite back on the sides whose st_mtime is that of
// another moment than the write (D83). On the kernel's side a write to a page that is dirty already
// does not change it. The program without the writeback cache sees the write then.
func writeMappedBack(t *testing.T, e *harness.Env, o operation.Op, sides ...*operation.Side) {
	t.Helper()
	collects := e.Has("writeback=1") || e.Has(harness.Passthrough) || harness.KernelAtLeast(t, 6, 17) // D20
	late := e.Has("writeback=0") || e.Has("timeout=0") || !collects
	for _, s := range sides {
		if o.Name == "slot-mapwrite" && (s.Overlay.Kernel || late) {
			_ = s.Run(operation.Op{Name: "slot-msync", Slot: o.Slot, N: unix.MS_SYNC})
		}
	}
}

// deviates reports whether two results differ by a deviation of the table.
func deviates(o operation.Op, kernel, ours string) bool {
	for _, d := range deviations {
		if d.match != nil && d.match(o, kernel, ours) {
			return true
		}
	}
	return false
}

// diverges reports whether the results differ by D15, D17 or D18, after which the two trees differ.
func diverges(e *harness.Env, o operation.Op, kernel, ours string, right *operation.Side) bool {
	var st unix.Stat_t
	switch o.Name {
	case "rename", "link":
		if ours != "ok" || unix.Lstat(right.Overlay.Path(o.Path2), &st) != nil {
			return false
		}
		isFile := st.Mode&unix.S_IFMT == unix.S_IFREG
		return kernel == "EXDEV" && isFile && st.Size == 0 || kernel == "ESTALE" && !isFile && e.Has("userxattr")
	case "slot-chmod":
		return kernel == "ok" && ours == "ENOENT" && unix.Fstat(right.FDs[o.Slot], &st) == nil && st.Nlink == 0 &&
			st.Mode&unix.S_IFMT != unix.S_IFREG
	}
	return false
}

func compareMerged(what string, left, right *operation.Side) string {
	v := harness.ExactView
	want, err := harness.Snapshot(left.Overlay.Point, v)
	if err != nil {
		return what + ": kernel: " + err.Error()
	}
	got, err := harness.Snapshot(right.Overlay.Point, v)
	if err != nil {
		return what + ": ours: " + err.Error()
	}
	if d := harness.DiffLines(want, got); d != "" {
		return what + ":\n" + d
	}
	return ""
}

// compareUppers compares what the two mounts left on disk.
func compareUppers(e *harness.Env, left, right *operation.Side) string {
	want, err := harness.Snapshot(left.Overlay.Upper, upperView(e, left.Overlay))
	if err != nil {
		return "upper: kernel: " + err.Error()
	}
	got, err := harness.Snapshot(right.Overlay.Upper, upperView(e, right.Overlay))
	if err != nil {
		return "upper: ours: " + err.Error()
	}
	if d := harness.DiffLines(want, got); d != "" {
		return "upper on disk:\n" + d
	}
	return ""
}

// upperView shows uppers of the same meaning alike. It leaves out the xattrs that describe the
// origin of an object, and an opaque xattr that hides nothing.
func upperView(e *harness.Env, o *harness.Overlay) harness.View {
	v := harness.ExactView
	v.Xattr = func(rel, name string) (string, bool) {
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
			if harness.KindOf(filepath.Join(o.Upper, rel)) == unix.S_IFREG && !isMetacopy(o, rel) {
				return "", false
			}
			to, err := harness.GetXattr(filepath.Join(o.Upper, rel), name)
			return "redirect", err != nil || to != filepath.Base(rel) && to != "/"+filepath.Join(below(o, filepath.Dir(rel)),
				filepath.Base(rel))
		}
		return name, true
	}
	return v
}

// isMetacopy reports whether the data of a file of the upper lies in a lower. Empty files are never
// metacopies here.
func isMetacopy(o *harness.Overlay, rel string) bool {
	path := filepath.Join(o.Upper, rel)
	var st unix.Stat_t
	_, err := harness.GetXattr(path, "trusted.overlay.metacopy")
	return err == nil && unix.Lstat(path, &st) == nil && st.Size > 0
}

// below is the path in the lowers that belongs to a path in the upper, by the redirects of the
// upper.
func below(o *harness.Overlay, rel string) string {
	if rel == "." {
		return rel
	}
	path := filepath.Join(o.Upper, rel)
	to, err := harness.GetXattr(path, "trusted.overlay.redirect")
	switch {
	case err != nil:
		to = filepath.Base(rel)
	case to[0] == '/':
		return to[1:]
	}
	return filepath.Join(below(o, filepath.Dir(rel)), to)
}

// hides reports whether the lowers have a directory with which a directory of the upper would
// merge.
func hides(e *harness.Env, o *harness.Overlay, rel string) bool {
	layers := o.Lowers
	for _, p := range append(parents(rel), rel) {
		if p != rel && isOpaque(filepath.Join(o.Upper, p)) {
			return false
		}
		if to, err := harness.GetXattr(filepath.Join(o.Upper, p), "trusted.overlay.redirect"); err == nil && to[0] == '/' {
			layers = o.Lowers // it begins at the root (ovl_lookup)
		}
		var kept []string
	search:
		for _, layer := range layers {
			path := filepath.Join(layer, below(o, p))
			switch harness.KindOf(path) {
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

func isOpaque(path string) bool {
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if v, err := harness.GetXattr(path, name); err == nil && v == "y" {
			return true
		}
	}
	return false
}

// zeroRangeMissing reports whether the kernel is older than Linux 5.15.
func zeroRangeMissing() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major < 5 || major == 5 && minor < 15)
}
