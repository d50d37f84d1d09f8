package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// op is one operation of a random sequence. A slot is a descriptor kept over several operations.
type op struct {
	name        string
	path, path2 string
	text        string // content, xattr value or link target
	key         string // xattr name
	n, m        int64  // offset, length, mode, flags
	slot        int
	uid         int // who asks: 0 or an unprivileged user
}

func (o op) String() string {
	s := o.name
	if strings.HasPrefix(o.name, "slot") {
		s += fmt.Sprintf("[%d]", o.slot)
	}
	for _, p := range []string{o.path, o.path2, o.key} {
		if p != "" {
			s += " " + word1(p)
		}
	}
	if o.text != "" {
		s += " " + brief(o.text)
	}
	if o.n != 0 || o.m != 0 {
		s += fmt.Sprintf(" %#o %d", o.n, o.m)
	}
	if o.uid != 0 {
		s += fmt.Sprintf(" (uid %d)", o.uid)
	}
	return s
}

const slots = 3

// side is one of the two mounts a sequence runs on.
type side struct {
	o  *overlay
	fd [slots]int // -1: closed
}

func newSide(o *overlay) *side { return &side{o: o, fd: [slots]int{-1, -1, -1}} }

// close closes the kept descriptors.
func (s *side) close() {
	for i, fd := range s.fd {
		if fd >= 0 {
			_ = unix.Close(fd)
			s.fd[i] = -1
		}
	}
}

// do runs one operation and tells the result in a form that must be equal on both sides.
func (s *side) do(t *testing.T, o op) string {
	result := ""
	run := func() { result = s.run(o) }
	if o.uid != 0 {
		as(t, o.uid, 1000, run)
	} else {
		run()
	}
	return result
}

func (s *side) run(o op) string {
	p := s.o.mnt + "/" + o.path
	switch o.name {
	case "create":
		return s.writeFile(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, uint32(o.n), o.text, -1)
	case "overwrite":
		return s.writeFile(p, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, uint32(o.n), o.text, -1)
	case "append":
		return s.writeFile(p, unix.O_APPEND|unix.O_WRONLY, 0, o.text, -1)
	case "pwrite":
		return s.writeFile(p, unix.O_WRONLY, 0, o.text, o.n)
	case "truncate":
		var st unix.Stat_t
		known := unix.Stat(p, &st) == nil
		if err := unix.Truncate(p, o.n); err != nil || !known || st.Size != o.n {
			return res(err)
		}
		return sizeWasThat
	case "mkdir":
		return res(unix.Mkdir(p, uint32(o.n)))
	case "rmdir":
		return res(unix.Rmdir(p))
	case "unlink":
		return res(unix.Unlink(p))
	case "rename":
		return res(unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, s.o.path(o.path2), uint(o.n)))
	case "link":
		return res(unix.Linkat(unix.AT_FDCWD, p, unix.AT_FDCWD, s.o.path(o.path2), 0))
	case "symlink":
		return res(unix.Symlink(o.text, p))
	case "mknod":
		return res(unix.Mknod(p, uint32(o.n), int(o.m)))
	case "chmod":
		return res(unix.Chmod(p, uint32(o.n)))
	case "chown":
		return res(unix.Lchown(p, int(o.n), int(o.m)))
	case "utimes":
		ts := []unix.Timespec{{Sec: o.n, Nsec: o.m}, {Sec: o.n, Nsec: o.m}}
		return res(unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	case "setxattr":
		return res(unix.Lsetxattr(p, o.key, []byte(o.text), int(o.n)))
	case "removexattr":
		return res(unix.Lremovexattr(p, o.key))
	case "getxattr":
		value, err := getXattr(p, o.key)
		return res(err) + " " + quote(value)
	case "listxattr":
		return s.listXattrs(p)
	case "readdir":
		return s.readDir(p)
	case "read":
		return readAll(p)
	case "readlink":
		target, err := os.Readlink(p)
		return res(err) + " " + strings.ReplaceAll(target, s.o.mnt, "MNT")
	case "stat":
		return statText(p)
	}
	return s.runSlot(o, p)
}

// sizeWasThat is the result of a truncation to the size that the file had.
const sizeWasThat = "ok, the size was that"

// runSlot runs the operations on kept descriptors.
func (s *side) runSlot(o op, p string) string {
	fd := s.fd[o.slot]
	if o.name == "slot-open" {
		// One byte is written at once: the kernel copies up at the open already, the daemon at the first write that it sees. With the
		// writeback cache that is the one of fsync.
		if fd >= 0 {
			_ = unix.Close(fd)
			s.fd[o.slot] = -1
		}
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|int(o.n), 0o644)
		if err != nil {
			return res(err)
		}
		s.fd[o.slot] = fd
		_, err = unix.Pwrite(fd, []byte("!"), 0)
		var st unix.Stat_t
		if err == nil && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			err = unix.Fsync(fd)
		}
		return res(err)
	}
	if fd < 0 {
		return "closed"
	}
	switch o.name {
	case "slot-write":
		n, err := unix.Pwrite(fd, []byte(o.text), o.n)
		return fmt.Sprint(res(err), " ", n)
	case "slot-read":
		return readFD(fd)
	case "slot-truncate":
		return res(unix.Ftruncate(fd, o.n))
	case "slot-stat":
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return res(err) + " " + statFormat(&st)
	case "slot-sync":
		return res(unix.Fsync(fd))
	case "slot-chmod":
		return res(unix.Fchmod(fd, uint32(o.n)))
	case "slot-fallocate":
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			return "not a file"
		}
		return res(unix.Fallocate(fd, uint32(o.n), o.m, int64(len(o.text))*1000))
	case "slot-close":
		s.fd[o.slot] = -1
		return res(unix.Close(fd))
	}
	panic("unknown operation " + o.name)
}

func res(err error) string { return errnoName(err) }

func (s *side) writeFile(p string, flags int, mode uint32, text string, offset int64) string {
	fd, err := unix.Open(p, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err != nil {
		return "open " + res(err)
	}
	var n int
	if offset >= 0 {
		n, err = unix.Pwrite(fd, []byte(text), offset)
	} else {
		n, err = unix.Write(fd, []byte(text))
	}
	result := fmt.Sprint("write ", res(err), " ", n)
	if err := unix.Close(fd); err != nil {
		result += " close " + res(err)
	}
	return result
}

const readLimit = 4 << 20 // devices have no end

func readAll(p string) string {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open " + res(err)
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
			return "read " + res(err)
		}
		if n == 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	return fmt.Sprintf("%d bytes %s", len(all), digest(all))
}

func (s *side) listXattrs(p string) string {
	names, err := xattrNames(p)
	slices.Sort(names)
	return res(err) + " " + strings.Join(names, " ")
}

// readDir lists names and types.
func (s *side) readDir(p string) string {
	entries, err := os.ReadDir(p)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name()+":"+e.Type().String())
	}
	return res(err) + " " + strings.Join(list, " ")
}

func statText(p string) string {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return res(err)
	}
	return statFormat(&st)
}

// statFormat leaves out what differs by design: inode and device numbers, sizes of directories, blocks, atime, ctime,
// and link counts of directories (deviation D1).
func statFormat(st *unix.Stat_t) string {
	s := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG, unix.S_IFLNK:
		s += fmt.Sprintf(" nlink %d size %d", st.Nlink, st.Size)
	default:
		s += fmt.Sprintf(" nlink %d rdev %d", st.Nlink, st.Rdev)
	}
	return s + " mtime " + timeClass(st.Mtim)
}

// probe is what is compared after an operation besides its result: the objects it names and their parents.
func (s *side) probe(o op) string {
	var b strings.Builder
	for _, p := range []string{o.path, o.path2} {
		if p != "" {
			fmt.Fprintf(&b, "[%s: %s] [parent: %s] ", p, statText(s.o.path(p)), statText(filepath.Dir(s.o.path(p))))
		}
	}
	return b.String()
}
