package changes

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// worker makes random changes in a tree. Their errors are ignored: which ones succeed depends on
// what there is, and the tree afterwards is what counts.
type worker struct {
	*rand.Rand
	t     *testing.T
	root  string
	uid0  bool // the worker may make owners and devices
	paths []string
}

func newWorker(t *testing.T, root string, seed uint64, uid0 bool) *worker {
	return &worker{Rand: rand.New(rand.NewPCG(seed, 7)), t: t, root: root, uid0: uid0}
}

var names = []string{"a", "b", "c", "d", "e f", "\xff\n", strings.Repeat("l", 251), "n\t\"q\""}

func (w *worker) look() {
	w.paths = nil
	harness.Check(w.t, filepath.WalkDir(w.root, func(path string, _ fs.DirEntry, err error) error {
		w.paths = append(w.paths, path)
		return err
	}))
}

// any is something that exists, but not the root, unless nothing else does.
func (w *worker) any() string { return w.paths[min(1+w.IntN(len(w.paths)), len(w.paths)-1)] }

// dir is a directory.
func (w *worker) dir() string {
	dirs := slices.DeleteFunc(slices.Clone(w.paths), func(p string) bool { return harness.KindOf(p) != unix.S_IFDIR })
	return dirs[w.IntN(len(dirs))]
}

// name is a path that may exist or not.
func (w *worker) name() string { return filepath.Join(w.dir(), names[w.IntN(len(names))]) }

func (w *worker) text() []byte {
	if w.IntN(4) == 0 {
		return []byte(strings.Repeat(fmt.Sprint(w.IntN(100), " "), 1+w.IntN(40000)))
	}
	return []byte(fmt.Sprint("text ", w.IntN(5)))
}

// write writes to a file. It does not wait for a reader of a fifo.
func (w *worker) write(path string, flags int) {
	if f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|flags, 0o644); err == nil {
		_, _ = f.Write(w.text())
		f.Close()
	}
}

// step makes one change.
func (w *worker) step() {
	switch w.IntN(18) {
	case 0, 1:
		w.write(w.name(), unix.O_CREAT|unix.O_TRUNC)
	case 2:
		w.write(w.any(), unix.O_APPEND)
	case 3:
		_ = os.Truncate(w.any(), int64(w.IntN(20)))
	case 4:
		_ = os.Mkdir(w.name(), 0o755)
	case 5, 6:
		_ = os.RemoveAll(w.any())
	case 7:
		p := w.dir()
		if p != w.root && os.RemoveAll(p) == nil {
			_ = os.Mkdir(p, 0o755)
			w.write(filepath.Join(p, "a"), unix.O_CREAT)
		}
	case 8, 9, 10:
		_ = os.Rename(w.any(), w.name())
	case 11:
		_ = os.Link(w.any(), w.name())
	case 12:
		_ = os.Symlink(filepath.Base(w.any()), w.name())
	case 13:
		_ = unix.Mknod(w.name(), unix.S_IFIFO|0o640, 0)
	case 14:
		mode := []uint32{0o600, 0o644, 0o755, 0o2755, 0o4755, 0o1777}[w.IntN(6)]
		if !w.uid0 {
			mode |= 0o700 // a plain user lists its directories
		}
		_ = unix.Chmod(w.any(), mode)
	case 15:
		_ = unix.Lsetxattr(w.any(), []string{"user.a", "user.b"}[w.IntN(2)], w.text()[:2], 0)
	case 16:
		p := w.any()
		at := unix.Timespec{Sec: int64(1000 + w.IntN(1000)), Nsec: int64(w.IntN(1e9))}
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	case 17:
		if w.uid0 {
			_ = os.Lchown(w.any(), w.IntN(3), w.IntN(3))
		}
	}
}

// work makes changes.
func (w *worker) work(steps int) {
	for range steps {
		w.look()
		w.step()
	}
}

// lowerTable is a lower for a worker.
const lowerTable = `
	file a "lower a"
	file b 0600 "lower b"
	link c b
	file "e f/a" "1"
	file "e f/b/c" "2"
	xattr "e f/b/c" user.a value
	file d/a/b/c/deep "deep"
	file d/b "b"
	symlink d/l ../a
	fifo d/p
	dir d/empty 2755
	file big "x"
	size big 300000`
