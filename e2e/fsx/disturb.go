package fsx

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// disturber makes operations that change nothing, at random, until it is stopped: opens, reads,
// syncs and closes. A close of any descriptor writes dirty pages back on a FUSE file system, and so
// does each sync.
type disturber struct {
	stop chan struct{}
	wg   sync.WaitGroup
}

// disturb begins to disturb files. Without any it only stops. After a stop no operation is in
// progress.
func (w *worker) disturb(names []string) {
	if w.disturber != nil {
		close(w.disturber.stop)
		w.disturber.wg.Wait()
		w.disturber = nil
	}
	if len(names) == 0 {
		return
	}
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(w.dir, name)
	}
	d := &disturber{stop: make(chan struct{})}
	w.disturber = d
	d.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			select {
			case <-d.stop:
				return
			default:
			}
			once(paths[rand.IntN(len(paths))], buf)
			if rand.IntN(8) == 0 {
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
}

// once opens a file, makes at most one operation, and closes the file. It ignores errors, because a
// file may be removed.
func once(path string, buf []byte) {
	flags := unix.O_RDONLY
	if rand.IntN(3) == 0 {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	switch rand.IntN(8) {
	case 0:
		_ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	case 1:
		_, _ = unix.Pread(fd, buf, rand.Int64N(256<<10))
	case 2:
		_, _ = unix.Pread(fd, buf, 0)
	case 3:
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	}
}
