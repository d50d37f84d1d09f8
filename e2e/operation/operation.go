// Package operation holds the operations that tests make on two mounts, to compare their results:
// one operation as a value, and its result as a text. It compares nothing itself.
package operation

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Failure matches the result of an operation that has failed.
var Failure = regexp.MustCompile(`^(open |write |read |mmap )?E[A-Z]+|^closed|^not a file|^not mapped|^beyond|^SIGBUS`)

// Op is one operation. A slot is a descriptor that stays open over several operations.
type Op struct {
	Name        string
	Path, Path2 string
	Text        string // content, xattr value or link target
	Key         string // xattr name
	N, M        int64  // offset, length, mode, flags
	Slot        int
	UID         int // the user that makes it: 0 or an unprivileged user
}

func (o Op) String() string {
	s := o.Name
	if strings.HasPrefix(o.Name, "slot") {
		s += fmt.Sprintf("[%d]", o.Slot)
	}
	for _, p := range []string{o.Path, o.Path2, o.Key} {
		if p != "" {
			s += " " + harness.Word(p)
		}
	}
	if o.Text != "" {
		s += " " + harness.Brief(o.Text)
	}
	if o.N != 0 || o.M != 0 {
		s += fmt.Sprintf(" %#o %d", o.N, o.M)
	}
	if o.UID != 0 {
		s += fmt.Sprintf(" (uid %d)", o.UID)
	}
	return s
}

// Slots is the number of slots of a Side.
const Slots = 3

// Side is a mount on which operations run, with the descriptors and mappings of its slots.
type Side struct {
	Overlay *harness.Overlay
	FDs     [Slots]int // closed, or a descriptor
	maps    [Slots][]byte
}

// closed is the descriptor of a slot that is not open.
const closed = -1

// NewSide is a Side without open slots.
func NewSide(o *harness.Overlay) *Side {
	return &Side{Overlay: o, FDs: [Slots]int{closed, closed, closed}}
}

// Close closes all slots, and ends their mappings.
func (s *Side) Close() {
	for i, fd := range s.FDs {
		s.unmap(i)
		if fd >= 0 {
			_ = unix.Close(fd)
			s.FDs[i] = closed
		}
	}
}

// Do runs an operation as its user. The result is a text that must be equal on two sides.
func (s *Side) Do(t *testing.T, o Op) string {
	result := ""
	run := func() { result = s.Run(o) }
	if o.UID != 0 {
		harness.As(t, o.UID, 1000, run)
	} else {
		run()
	}
	return result
}

// Run runs an operation as the calling process.
func (s *Side) Run(o Op) string {
	p := s.Overlay.Point + "/" + o.Path
	switch o.Name {
	case "create":
		return writeFile(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, uint32(o.N), writing(o.Text))
	case "overwrite":
		return writeFile(p, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, uint32(o.N), writing(o.Text))
	case "append":
		return writeFile(p, unix.O_APPEND|unix.O_WRONLY, 0, writing(o.Text))
	case "pwrite":
		return writeFile(p, unix.O_WRONLY, 0, writingAt(o.Text, o.N))
	case "mapread", "mapwrite":
		return mapOnce(o, p)
	case "truncate":
		var st unix.Stat_t
		known := unix.Stat(p, &st) == nil
		if err := unix.Truncate(p, o.N); err != nil || !known || st.Size != o.N {
			return Result(err)
		}
		return SizeUnchanged
	case "mkdir":
		return Result(unix.Mkdir(p, uint32(o.N)))
	case "rmdir":
		return Result(unix.Rmdir(p))
	case "unlink":
		return Result(unix.Unlink(p))
	case "rename":
		return Result(unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, s.Overlay.Path(o.Path2), uint(o.N)))
	case "link":
		return Result(unix.Linkat(unix.AT_FDCWD, p, unix.AT_FDCWD, s.Overlay.Path(o.Path2), 0))
	case "symlink":
		return Result(unix.Symlink(o.Text, p))
	case "mknod":
		return Result(unix.Mknod(p, uint32(o.N), int(o.M)))
	case "chmod":
		return Result(unix.Chmod(p, uint32(o.N)))
	case "chown":
		return Result(unix.Lchown(p, int(o.N), int(o.M)))
	case "utimes":
		ts := []unix.Timespec{{Sec: o.N, Nsec: o.M}, {Sec: o.N, Nsec: o.M}}
		return Result(unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	case "setxattr":
		return Result(unix.Lsetxattr(p, o.Key, []byte(o.Text), int(o.N)))
	case "removexattr":
		return Result(unix.Lremovexattr(p, o.Key))
	case "getxattr", "listxattr", "readdir", "read", "readlink", "stat":
		return s.look(o, p)
	case "open":
		fd, err := unix.Open(p, int(o.N)|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(o.M))
		if err == nil {
			err = unix.Close(fd)
		}
		return Result(err)
	}
	return s.runSlot(o, p)
}

// look runs the operations that change nothing.
func (s *Side) look(o Op, p string) string {
	switch o.Name {
	case "getxattr":
		value, err := harness.GetXattr(p, o.Key)
		return Result(err) + " " + strconv.Quote(value)
	case "listxattr":
		return s.listXattrs(p)
	case "readdir":
		return s.readDir(p)
	case "read":
		return readAll(p)
	case "readlink":
		target, err := os.Readlink(p)
		return Result(err) + " " + strings.ReplaceAll(target, s.Overlay.Point, "MNT")
	case "stat":
		return statText(p)
	}
	panic("unknown operation " + o.Name)
}

// SizeUnchanged is the result of a truncation to the size that the file has.
const SizeUnchanged = "ok, the size was that"

// runSlot runs the operations on slots.
func (s *Side) runSlot(o Op, p string) string {
	fd := s.FDs[o.Slot]
	if o.Name == "slot-open" {
		// One byte is written at once: the kernel copies up at the open already, the daemon at the first
		// write that it sees. With the writeback cache that is the one of fsync.
		s.unmap(o.Slot)
		if fd >= 0 {
			_ = unix.Close(fd)
			s.FDs[o.Slot] = closed
		}
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|int(o.N), 0o644)
		if err != nil {
			return Result(err)
		}
		s.FDs[o.Slot] = fd
		_, err = unix.Pwrite(fd, []byte("!"), 0)
		if _, ok := regular(fd); ok && err == nil {
			err = unix.Fsync(fd)
		}
		return Result(err)
	}
	switch o.Name {
	case "slot-map", "slot-mapread", "slot-mapwrite", "slot-msync", "slot-unmap":
		return s.runMapping(o)
	}
	if fd < 0 {
		return "closed"
	}
	switch o.Name {
	case "slot-write":
		n, err := unix.Pwrite(fd, []byte(o.Text), o.N)
		return fmt.Sprint(Result(err), " ", n)
	case "slot-read":
		return readFD(fd)
	case "slot-truncate":
		return Result(unix.Ftruncate(fd, o.N))
	case "slot-stat":
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return Result(err) + " " + statFormat(&st)
	case "slot-sync":
		return Result(unix.Fsync(fd))
	case "slot-chmod":
		return Result(unix.Fchmod(fd, uint32(o.N)))
	case "slot-fallocate":
		if _, ok := regular(fd); !ok {
			return notFile
		}
		return Result(unix.Fallocate(fd, uint32(o.N), o.M, int64(len(o.Text))*1000))
	case "slot-close":
		s.FDs[o.Slot] = closed
		return Result(unix.Close(fd))
	}
	return s.writeBack(o, fd)
}

// Result is the name of an errno, or "ok".
func Result(err error) string { return harness.ErrnoName(err) }

// writing is write(2) of a text.
func writing(text string) func(fd int) (int, error) {
	return func(fd int) (int, error) { return unix.Write(fd, []byte(text)) }
}

// writingAt is pwrite(2) of a text.
func writingAt(text string, offset int64) func(fd int) (int, error) {
	return func(fd int) (int, error) { return unix.Pwrite(fd, []byte(text), offset) }
}

// writeFile opens a file, writes to it and closes it.
func writeFile(p string, flags int, mode uint32, write func(fd int) (int, error)) string {
	fd, err := unix.Open(p, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err != nil {
		return "open " + Result(err)
	}
	n, err := write(fd)
	result := fmt.Sprint("write ", Result(err), " ", n)
	if err := unix.Close(fd); err != nil {
		result += " close " + Result(err)
	}
	return result
}

// readLimit is the number of bytes after which a read stops, because devices have no end.
const readLimit = 4 << 20

func readAll(p string) string {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open " + Result(err)
	}
	defer unix.Close(fd)
	return readFD(fd)
}

func readFD(fd int) string {
	var all []byte
	buf := make([]byte, 64<<10)
	for len(all) < readLimit {
		n, err := unix.Pread(fd, buf, int64(len(all)))
		if err != nil {
			return "read " + Result(err)
		}
		if n == 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	return fmt.Sprintf("%d bytes %s", len(all), harness.Digest(all))
}

func (s *Side) listXattrs(p string) string {
	names, err := harness.XattrNames(p)
	slices.Sort(names)
	return Result(err) + " " + strings.Join(names, " ")
}

// readDir lists names and types.
func (s *Side) readDir(p string) string {
	entries, err := os.ReadDir(p)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name()+":"+e.Type().String())
	}
	return Result(err) + " " + strings.Join(list, " ")
}

func statText(p string) string {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return Result(err)
	}
	return statFormat(&st)
}

// statFormat leaves out what differs by design: inode and device numbers, sizes of directories,
// blocks, atime, ctime, and link counts of directories (deviation D1).
func statFormat(st *unix.Stat_t) string {
	s := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG, unix.S_IFLNK:
		s += fmt.Sprintf(" nlink %d size %d", st.Nlink, st.Size)
	default:
		s += fmt.Sprintf(" nlink %d rdev %d", st.Nlink, st.Rdev)
	}
	return s + " mtime " + harness.TimeClass(st.Mtim)
}

// Probe is what two sides must have in common after an operation besides its result: the attributes
// of the objects it names, and those of their parents.
func (s *Side) Probe(o Op) string {
	var b strings.Builder
	for _, p := range []string{o.Path, o.Path2} {
		if p != "" {
			fmt.Fprintf(&b, "[%s: %s] [parent: %s] ", p, statText(s.Overlay.Path(p)), statText(filepath.Dir(s.Overlay.Path(p))))
		}
	}
	return b.String()
}

// Remount closes the slots and mounts anew.
func (s *Side) Remount() {
	s.Close()
	s.Overlay.Unmount()
	s.Mount()
}

// Mount mounts again, and removes what a volatile mount has left.
func (s *Side) Mount() {
	s.Overlay.ForgetVolatile()
	s.Overlay.Mount()
}

// Finish closes the slots and unmounts.
func (s *Side) Finish() {
	s.Close()
	if s.Overlay.IsMounted() {
		s.Overlay.Unmount()
	}
}

// DropSuid clears the suid and sgid bits that the write of an operation may have cleared.
func (s *Side) DropSuid(o Op) {
	fd := -1
	switch o.Name {
	case "slot-open", "slot-write", "slot-mapwrite":
		fd = s.FDs[o.Slot]
	case "overwrite", "append", "pwrite", "mapwrite":
		var err error
		if fd, err = unix.Open(s.Overlay.Path(o.Path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if fd >= 0 && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG &&
		st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		_ = unix.Fchmod(fd, st.Mode&0o1777)
	}
}
