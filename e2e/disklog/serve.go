package disklog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The files of the mount.
const (
	Disk  = "disk"  // the image
	Marks = "marks" // see [SetMark]
)

// Server is a mount of Disk and Marks.
type Server struct {
	fuse  *fuse.Server
	image *os.File

	mu  sync.Mutex // held from a change of image to its entry in log
	log *writer
}

// Serve mounts at mnt, and logs to a new file what the image gets. It needs root. If a loop device
// uses the mount, call Serve in a process of its own: the end of a process waits for its files, and
// those on the loop device wait for the server.
func Serve(mnt, image, log string) (*Server, error) {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(log)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &Server{image: f, log: w}
	s.fuse, err = gofs.Mount(mnt, &rootNode{server: s}, &gofs.Options{MountOptions: fuse.MountOptions{
		FsName: "disklog", Name: "disklog", DirectMountStrict: true, MaxWrite: 1 << 20,
	}})
	if err != nil {
		return nil, errors.Join(err, w.close(), f.Close())
	}
	return s, nil
}

// Wait returns after the unmount. The log is complete then.
func (s *Server) Wait() error {
	s.fuse.Wait()
	return errors.Join(s.log.close(), s.image.Close())
}

// SetMark puts a text into the log of the server that is mounted at mnt, after all requests that
// it has replied to.
func SetMark(mnt, text string) error {
	f, err := os.OpenFile(filepath.Join(mnt, Marks), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// change makes a change of the image, and logs it.
func (s *Server) change(e Entry, f func() error) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f(); err != nil {
		return gofs.ToErrno(err)
	}
	return gofs.ToErrno(s.log.add(e))
}

type rootNode struct {
	gofs.Inode
	server *Server
}

func (r *rootNode) OnAdd(ctx context.Context) {
	for name, node := range map[string]gofs.InodeEmbedder{
		Disk: &diskNode{server: r.server}, Marks: &marksNode{server: r.server},
	} {
		r.AddChild(name, r.NewPersistentInode(ctx, node, gofs.StableAttr{Mode: unix.S_IFREG}), false)
	}
}

// diskNode is the image.
type diskNode struct {
	gofs.Inode
	server *Server
}

func (d *diskNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := d.server.image.Stat()
	if err != nil {
		return gofs.ToErrno(err)
	}
	out.Mode, out.Size = 0o600, uint64(st.Size())
	return 0
}

// Open makes each read and write a request.
func (d *diskNode) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (d *diskNode) Read(_ context.Context, _ gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := unix.Pread(int(d.server.image.Fd()), dest, off)
	if err != nil {
		return nil, gofs.ToErrno(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (d *diskNode) Write(_ context.Context, _ gofs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	errno := d.server.change(Entry{Kind: Write, Offset: off, Size: int64(len(data)), Data: data}, func() error {
		_, err := d.server.image.WriteAt(data, off)
		return err
	})
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

func (d *diskNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno {
	return d.server.change(Entry{Kind: Flush}, func() error { return nil })
}

func (d *diskNode) Allocate(_ context.Context, _ gofs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const zeroes = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if mode&zeroes == 0 {
		return syscall.EOPNOTSUPP
	}
	return d.server.change(Entry{Kind: Zero, Offset: int64(off), Size: int64(size)}, func() error {
		return unix.Fallocate(int(d.server.image.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			int64(off), int64(size))
	})
}

// marksNode turns each write into a Mark.
type marksNode struct {
	gofs.Inode
	server *Server
}

func (m *marksNode) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (m *marksNode) Write(_ context.Context, _ gofs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	errno := m.server.change(Entry{Kind: Mark, Size: int64(len(data)), Data: data}, func() error { return nil })
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}
