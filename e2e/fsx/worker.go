package fsx

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// worker makes operations in one process. It is used by one goroutine at a time.
type worker struct {
	dir       string
	fds       map[slot]int
	maps      map[slot]mapping
	direct    []byte // memory for O_DIRECT, aligned to a page
	buf       []byte
	disturber *disturber
}

// slot names a descriptor or a mapping that stays open.
type slot struct{ file, n int }

// mapping is a shared mapping. mem begins at off in the file.
type mapping struct {
	mem []byte
	off int64
}

func newWorker(dir string) *worker {
	return &worker{dir: dir, fds: map[slot]int{}, maps: map[slot]mapping{}}
}

func (w *worker) path(o *op) string { return filepath.Join(w.dir, o.Name) }

// do makes one operation. An access to a mapping that the kernel refuses is a Fault of the result.
func (w *worker) do(o *op) (res result) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			res = result{Fault: fmt.Sprintf("the access fails: %v", p)}
		}
	}()
	err := w.run(o, &res)
	for err == unix.EINTR && o.Kind != opAppend && o.Kind != opClose { // the runtime sends signals to threads
		err = w.run(o, &res)
	}
	if o.Size { // after a failure too, which must not change the file
		size, failed := w.size(o)
		res.Size = size
		if err == nil {
			err = failed
		}
	}
	if errno, ok := err.(unix.Errno); ok {
		res.Errno = errno
	} else if err != nil {
		res.Fault = err.Error()
	}
	return res
}

func (w *worker) size(o *op) (int64, error) {
	var st unix.Stat_t
	err := unix.Stat(w.path(o), &st)
	if fd, ok := w.fds[slot{o.File, o.Slot}]; ok && o.Kind != opStat {
		err = unix.Fstat(fd, &st)
	}
	return st.Size, err
}

func (w *worker) run(o *op, res *result) (err error) {
	at := slot{o.File, o.Slot}
	fd := -1
	if open, ok := w.fds[at]; ok {
		fd = open
	}
	switch o.Kind {
	case opOpen:
		w.fds[at], err = unix.Open(w.path(o), o.Flags|unix.O_CLOEXEC, 0o644)
	case opClose:
		delete(w.fds, at)
		err = unix.Close(fd)
	case opTouch:
		if fd, err = unix.Open(w.path(o), o.Flags|unix.O_CLOEXEC, 0); err == nil {
			err = unix.Close(fd)
		}
	case opRead:
		res.Data, err = w.read(fd, w.memory(fd, o.Len), o.Off)
	case opWrite:
		res.N, err = write(w.filled(fd, o), func(b []byte, done int64) (int, error) { return unix.Pwrite(fd, b, o.Off+done) })
	case opAppend:
		res.N, err = write(w.filled(fd, o), func(b []byte, _ int64) (int, error) { return unix.Write(fd, b) })
	case opMapRead, opMapWrite:
		err = w.mapOnce(fd, o, res)
	case opMap:
		w.maps[at], err = mapRange(fd, o.Off, o.Len, unix.PROT_READ|unix.PROT_WRITE)
	case opKeptRead, opKeptWrite:
		err = w.access(w.maps[at], o, res)
	case opUnmap:
		err = unix.Munmap(w.maps[at].mem)
		delete(w.maps, at)
	case opDisturb:
		w.disturb(o.Names)
	default:
		err = w.runOnFile(o, fd, res)
	}
	return err
}

// runOnFile makes the operations that neither read nor write data themselves.
func (w *worker) runOnFile(o *op, fd int, res *result) error {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	switch o.Kind {
	case opTruncate:
		return unix.Truncate(w.path(o), o.Len)
	case opFtruncate:
		return unix.Ftruncate(fd, o.Len)
	case opFallocate:
		return unix.Fallocate(fd, uint32(o.Flags), o.Off, o.Len)
	case opCopy:
		from, to := o.FromOff, o.Off
		n, err := unix.CopyFileRange(w.fds[slot{o.FromFile, o.FromSlot}], &from, fd, &to, int(o.Len), 0)
		res.N = int64(n)
		return err
	case opFsync:
		return unix.Fsync(fd)
	case opFdatasync:
		return unix.Fdatasync(fd)
	case opWriteBack:
		return unix.SyncFileRange(fd, 0, 0, wait)
	case opStartBack:
		return unix.SyncFileRange(fd, o.Off, o.Len, unix.SYNC_FILE_RANGE_WRITE)
	case opDrop:
		return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	case opDropAll:
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	case opSyncfs:
		return unix.Syncfs(fd)
	case opChmod:
		return unix.Chmod(w.path(o), uint32(o.Flags))
	case opStat:
		return nil
	case opRemove:
		return unix.Unlink(w.path(o))
	}
	return unix.ENOSYS
}

// memory is a buffer for I/O by fd, aligned for O_DIRECT.
func (w *worker) memory(fd int, size int64) []byte {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		if int64(len(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		return w.buf[:size]
	}
	if int64(len(w.direct)) < size {
		if w.direct, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
			panic(err)
		}
	}
	return w.direct[:size]
}

// filled is the data that the operation writes.
func (w *worker) filled(fd int, o *op) []byte {
	data := bytesOf(o.N, o.Len)
	b := w.memory(fd, o.Len)
	copy(b, data)
	return b
}

// read reads to the end of b or of the file.
func (w *worker) read(fd int, b []byte, off int64) ([]byte, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(fd, b[done:], off+int64(done))
		if err != nil {
			return nil, err
		}
		done += n
		if n == 0 || len(w.direct) > 0 && &b[0] == &w.direct[0] { // a short read by O_DIRECT ends off the alignment
			break
		}
	}
	return b[:done], nil
}

// write writes all of b. One write(2) may write less.
func write(b []byte, call func(b []byte, done int64) (int, error)) (int64, error) {
	var done int64
	for done < int64(len(b)) {
		n, err := call(b[done:], done)
		if err != nil {
			return done, err
		}
		done += int64(n)
	}
	return done, nil
}

func mapRange(fd int, off, size int64, prot int) (mapping, error) {
	begin := off &^ (pageSize - 1)
	mem, err := unix.Mmap(fd, begin, int(off+size-begin), prot, unix.MAP_SHARED)
	return mapping{mem, begin}, err
}

func (w *worker) mapOnce(fd int, o *op, res *result) error {
	prot := unix.PROT_READ
	if o.Kind == opMapWrite {
		prot |= unix.PROT_WRITE
	}
	m, err := mapRange(fd, o.Off, o.Len, prot)
	if err != nil {
		return err
	}
	err = w.access(m, o, res)
	if e := unix.Munmap(m.mem); err == nil {
		err = e
	}
	return err
}

// access reads or writes by a mapping.
func (w *worker) access(m mapping, o *op, res *result) error {
	mem := m.mem[o.Off-m.off:][:o.Len]
	if o.Kind == opMapRead || o.Kind == opKeptRead {
		res.Data = append(w.buf[:0], mem...)
		w.buf = res.Data[:cap(res.Data)]
		return nil
	}
	copy(mem, bytesOf(o.N, o.Len))
	if o.Flags == 0 {
		return nil
	}
	return unix.Msync(m.mem, o.Flags)
}

// closeAll closes the files and mappings of a round.
func (w *worker) closeAll() {
	w.disturb(nil)
	for _, fd := range w.fds {
		unix.Close(fd)
	}
	for _, m := range w.maps {
		_ = unix.Munmap(m.mem)
	}
	clear(w.fds)
	clear(w.maps)
}
