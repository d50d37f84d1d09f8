package kills

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// op is one operation of a process.
type op struct {
	Kind        string
	Path, Path2 string
	Data        []byte
	Text        string // the name of an xattr, or the target of a symbolic link
	N, M        int64  // offset, size, mode, ids or time
	Sync        bool   // by fsync, or msync
	Slot        int
	Want        unix.Errno // the error that it must have; 0: none
}

func (o op) String() string {
	return fmt.Sprintf("%s %s %s %s slot %d %d %d, %d bytes, sync %v, want %q", o.Kind, o.Path, o.Path2, o.Text, o.Slot, o.N, o.M,
		len(o.Data), o.Sync, unix.ErrnoName(o.Want))
}

// slots is the number of files that a process keeps open.
const slots = 2

// process is what makes operations.
type process struct {
	root string
	fds  [slots]int
}

// errFault is the error of an access to a mapping that the kernel could not make.
var errFault = errors.New("SIGBUS")

// do makes an operation in the mount.
func (p *process) do(o *op) error {
	path, path2 := p.root+"/"+o.Path, p.root+"/"+o.Path2
	switch o.Kind {
	case "create":
		return writeTo(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint32(o.N), -1, o)
	case "overwrite":
		return writeTo(path, unix.O_WRONLY|unix.O_TRUNC, 0, -1, o)
	case "append":
		return writeTo(path, unix.O_WRONLY|unix.O_APPEND, 0, -1, o)
	case "pwrite":
		return writeTo(path, unix.O_WRONLY, 0, o.N, o)
	case "tmpfile":
		return linkTmpfile(path, o)
	case "map":
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(writeMapped(fd, o), unix.Close(fd))
	case "truncate":
		return unix.Truncate(path, o.N)
	case "chmod":
		return unix.Chmod(path, uint32(o.N))
	case "chown":
		return unix.Lchown(path, int(o.N), int(o.M))
	case "utimes":
		ts := []unix.Timespec{{Sec: o.N}, {Sec: o.N}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	case "setxattr":
		return unix.Lsetxattr(path, o.Text, o.Data, 0)
	case "removexattr":
		return unix.Lremovexattr(path, o.Text)
	case "mkdir":
		return unix.Mkdir(path, uint32(o.N))
	case "mkfifo":
		return unix.Mknod(path, unix.S_IFIFO|uint32(o.N), 0)
	case "rmdir":
		return unix.Rmdir(path)
	case "unlink":
		return unix.Unlink(path)
	case "symlink":
		return unix.Symlink(o.Text, path)
	case "link":
		return unix.Link(path, path2)
	case "rename":
		return unix.Rename(path, path2)
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path2, unix.RENAME_EXCHANGE)
	}
	return p.doSlot(path, o)
}

// doSlot makes the operations on files that stay open.
func (p *process) doSlot(path string, o *op) (err error) {
	fd := p.fds[o.Slot]
	switch o.Kind {
	case "slot-open":
		p.fds[o.Slot], err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		return err
	case "slot-write":
		return writeAll(fd, o.Data, o.N)
	case "slot-map":
		return writeMapped(fd, o)
	case "slot-sync":
		return unix.Fsync(fd)
	case "slot-close":
		return unix.Close(fd)
	}
	panic("unknown operation " + o.Kind)
}

// writeTo opens a file, writes and closes.
func writeTo(path string, flags int, mode uint32, offset int64, o *op) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	err = writeAll(fd, o.Data, offset)
	if err == nil && o.Sync {
		err = unix.Fsync(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// writeAll writes at an offset, or where the file is if that is negative.
func writeAll(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		var n int
		var err error
		if offset < 0 {
			n, err = unix.Write(fd, data)
		} else {
			n, err = unix.Pwrite(fd, data, offset)
			offset += int64(n)
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// linkTmpfile writes a file without a name, and gives it one.
func linkTmpfile(path string, o *op) error {
	fd, err := unix.Open(dirOf(path), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(o.N))
	if err != nil {
		return err
	}
	err = writeAll(fd, o.Data, 0)
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	return errors.Join(err, unix.Close(fd))
}

// writeMapped changes a file by a shared mapping of the pages of the change.
func writeMapped(fd int, o *op) (err error) {
	page := int64(os.Getpagesize())
	begin := o.N / page * page
	m, err := unix.Mmap(fd, begin, int(o.N+int64(len(o.Data))-begin), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	if err := copyMapped(m[o.N-begin:], o.Data); err != nil || !o.Sync {
		return err
	}
	return unix.Msync(m, unix.MS_SYNC)
}

// copyMapped is copy. A page that the kernel cannot read is an error.
func copyMapped(to, from []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errFault, r)
		}
	}()
	for i := range from { // one by one: runtime.memmove faults as well, but in assembly
		*(*byte)(unsafe.Add(unsafe.Pointer(&to[0]), i)) = from[i]
	}
	return nil
}

// requesting are operations that end with a reply of the daemon.
var requesting = []string{
	"create", "tmpfile", "truncate", "chmod", "chown", "utimes", "setxattr", "removexattr", "mkdir", "mkfifo", "rmdir", "unlink",
	"symlink", "link", "rename", "exchange",
}

// apply changes the tree as an operation does that has ended, or that was in flight: then what it
// writes may be there in part.
func (t *tree) apply(o *op, p *policy, inFlight bool) {
	if o.Want != 0 {
		return
	}
	if !inFlight && slices.Contains(requesting, o.Kind) {
		t.daemonReplied()
	}
	if strings.HasPrefix(o.Kind, "slot") {
		t.applySlot(o, p, inFlight)
		return
	}
	switch o.Kind {
	case "tmpfile":
		t.add(o.Path, p.newObject(unix.S_IFREG, uint32(o.N)))
		t.at(o.Path).Data = o.Data
	case "create":
		t.add(o.Path, p.newObject(unix.S_IFREG, uint32(o.N)))
		t.applyWrite(o, p, inFlight)
	case "overwrite", "append", "pwrite", "map", "truncate":
		t.changed(o.Path)
		t.applyWrite(o, p, inFlight)
	case "mkdir":
		t.add(o.Path, p.newObject(unix.S_IFDIR, uint32(o.N)))
	case "mkfifo":
		t.add(o.Path, p.newObject(unix.S_IFIFO, uint32(o.N)))
	case "symlink":
		n := p.newObject(unix.S_IFLNK, 0o777)
		n.Target = o.Text
		t.add(o.Path, n)
	case "rmdir", "unlink":
		delete(t.Names, o.Path)
	case "link":
		t.changed(o.Path)
		t.Names[o.Path2] = t.Names[o.Path]
	case "rename":
		t.changed(o.Path)
		delete(t.Names, o.Path2)
		t.move(o.Path, o.Path2)
	case "exchange":
		t.changed(o.Path)
		t.changed(o.Path2)
		t.exchange(o.Path, o.Path2)
	default:
		t.applyAttribute(o)
	}
}

func (t *tree) applyWrite(o *op, p *policy, inFlight bool) {
	i := t.Names[o.Path]
	n := t.Objects[i]
	data := changedData(n.Data, o)
	if o.Kind == "overwrite" {
		t.write(i, []byte{})
	}
	t.write(i, data)
	switch {
	case inFlight:
	case o.Sync, o.Kind == "truncate", o.Kind != "map" && p.Through:
		n.sync()
	default:
		t.close(i)
	}
}

// between is the tree in the midst of a rename of a file over another one, with whiteouts that are
// xattrs: the file has both names, so that no lower's object shows (whiteout.Maker, moveByLink).
func (t *tree) between(o *op) *tree {
	c := t.copy()
	c.changed(o.Path)
	c.Names[o.Path2] = c.Names[o.Path]
	return c
}

// changedData is the content of a file after an operation.
func changedData(old []byte, o *op) []byte {
	switch o.Kind {
	case "create", "overwrite":
		return o.Data
	case "append":
		return append(old[:len(old):len(old)], o.Data...)
	case "truncate":
		data := make([]byte, o.N)
		copy(data, old)
		return data
	}
	data := make([]byte, max(int64(len(old)), o.N+int64(len(o.Data))))
	copy(data, old)
	copy(data[o.N:], o.Data)
	return data
}

func (t *tree) applyAttribute(o *op) {
	n := t.changed(o.Path)
	switch o.Kind {
	case "chmod":
		n.Mode = uint32(o.N)
	case "chown":
		n.UID, n.GID = int(o.N), int(o.M)
	case "utimes":
		n.Mtime = o.N
	case "setxattr":
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[o.Text] = string(o.Data)
	case "removexattr":
		delete(n.Xattrs, o.Text)
	default:
		panic("unknown operation " + o.Kind)
	}
}

func (t *tree) applySlot(o *op, p *policy, inFlight bool) {
	if o.Kind == "slot-open" {
		t.Open[o.Slot] = t.Names[o.Path]
		return
	}
	i := t.Open[o.Slot]
	n := t.Objects[i]
	switch o.Kind {
	case "slot-write":
		if t.write(i, changedData(n.Data, o)); !inFlight && p.Through {
			n.sync()
		}
	case "slot-map":
		known := n.certain() // msync writes the pages of the mapping back, and no others
		if t.write(i, changedData(n.Data, o)); !inFlight && o.Sync && known {
			n.sync()
		}
	case "slot-sync":
		if !inFlight {
			n.sync()
		}
	case "slot-close":
		if t.Open[o.Slot] = notOpen; !inFlight {
			t.close(i)
		}
	}
}
