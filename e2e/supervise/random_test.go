package supervise

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// TestRandomOperations makes random operations in the mount and in a plain directory while the
// daemon is killed. Each operation has the same result in both, and in the end both are the same.
func TestRandomOperations(t *testing.T) {
	harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
		const workers = 4
		var table strings.Builder
		for w := range workers {
			fmt.Fprintf(&table, "dir w%d\n", w)
			for i := range 12 {
				fmt.Fprintf(&table, "file w%d/n%d\n", w, i)
			}
		}
		o := mounted(t, e, table.String())
		plain := filepath.Join(e.Dir, "plain")
		harness.Mkdir(t, plain)
		harness.Build(t, e, plain, table.String())
		k := startKiller(t, o, kills())
		var all sync.WaitGroup
		counts := make([]int, workers)
		for w := range workers {
			all.Go(func() {
				p := &pair{
					Rand: rand.New(rand.NewPCG(uint64(w), harness.EnvNumber("FUSE_OVERLAY_SEED", 1))),
					dirs: [2]string{filepath.Join(o.Point, fmt.Sprint("w", w)), filepath.Join(plain, fmt.Sprint("w", w))},
				}
				for k.running() {
					if diff := p.step(); diff != "" {
						t.Errorf("worker %d, operation %d: %s", w, counts[w], diff)
						return
					}
					counts[w]++
				}
				p.close()
			})
		}
		all.Wait()
		t.Logf("operations of the workers: %v", counts)
		if t.Failed() {
			t.Logf("daemons %v, supervisors %v\n%s", harness.DaemonsOf(o.Point), harness.SupervisorsOf(o.Point), logOf(o))
		}
		if got, want := picture(t, o.Point), picture(t, plain); got != want {
			t.Errorf("the mount:\n%s\nthe plain directory:\n%s", got, want)
		}
	})
}

// pair is the same directory twice. A worker makes each operation in both.
type pair struct {
	*rand.Rand
	dirs  [2]string
	files [4][2]*os.File // open in both
}

func (p *pair) name() string {
	if p.IntN(3) == 0 {
		return fmt.Sprintf("d%d/n%d", p.IntN(3), p.IntN(12))
	}
	return fmt.Sprintf("n%d", p.IntN(12))
}

// step makes one operation, and returns how its results differ.
func (p *pair) step() string {
	what, f := p.choose()
	var results [2]string
	for side, dir := range p.dirs {
		results[side] = strings.ReplaceAll(f(side, dir), dir, "")
	}
	if results[0] != results[1] {
		return fmt.Sprintf("%s: %q in the mount, %q in a plain directory", what, results[0], results[1])
	}
	return ""
}

func errno(err error) string { return harness.ErrnoName(err) }

func (p *pair) choose() (what string, f func(side int, dir string) string) {
	a, b := p.name(), p.name()
	data := bytes.Repeat([]byte{byte('a' + p.IntN(26))}, 1+p.IntN(9000))
	at, slot := int64(p.IntN(20000)), p.IntN(len(p.files))
	key, flag := fmt.Sprint("user.k", p.IntN(3)), []int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}[p.IntN(3)]
	onPath := func(f func(path string) error) func(int, string) string {
		return func(_ int, dir string) string { return errno(f(filepath.Join(dir, a))) }
	}
	switch p.IntN(20) {
	case 0, 1:
		return "create " + a, onPath(func(path string) error { return create(path, os.O_EXCL, data) })
	case 2:
		return "write " + a, onPath(func(path string) error { return create(path, os.O_TRUNC, data) })
	case 3, 4:
		return "unlink " + a, onPath(unix.Unlink)
	case 5:
		d := fmt.Sprint("d", p.IntN(3))
		return "mkdir " + d, func(_ int, dir string) string { return errno(unix.Mkdir(filepath.Join(dir, d), 0o755)) }
	case 6:
		d := fmt.Sprint("d", p.IntN(3))
		return "rmdir " + d, func(_ int, dir string) string { return errno(unix.Rmdir(filepath.Join(dir, d))) }
	case 7, 8:
		return "rename " + a + " " + b, func(_ int, dir string) string {
			return errno(unix.Rename(filepath.Join(dir, a), filepath.Join(dir, b)))
		}
	case 9:
		flags := uint([]int{unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE}[p.IntN(2)])
		return fmt.Sprintf("renameat2 %s %s %d", a, b, flags), func(_ int, dir string) string {
			return errno(unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, a), unix.AT_FDCWD, filepath.Join(dir, b), flags))
		}
	case 10:
		return "link " + a + " " + b, func(_ int, dir string) string {
			return errno(unix.Link(filepath.Join(dir, a), filepath.Join(dir, b)))
		}
	case 11:
		return "symlink " + a, onPath(func(path string) error { return unix.Symlink("target", path) })
	case 12:
		return "setxattr " + a, onPath(func(path string) error {
			return unix.Lsetxattr(path, key, data[:1], flag)
		})
	case 13:
		return "removexattr " + a, onPath(func(path string) error { return unix.Lremovexattr(path, key) })
	case 14:
		return "chmod " + a, onPath(func(path string) error { return os.Chmod(path, 0o600+os.FileMode(at%64)) })
	case 15:
		return "open " + a, func(side int, dir string) string { return p.open(side, slot, filepath.Join(dir, a)) }
	case 16:
		return fmt.Sprint("write slot ", slot), func(side int, _ string) string {
			return p.onFile(side, slot, func(f *os.File) error { _, err := f.WriteAt(data, at); return err })
		}
	case 17:
		return fmt.Sprint("read slot ", slot), func(side int, _ string) string { return p.read(side, slot) }
	case 18:
		return "read " + a, func(_ int, dir string) string {
			text, err := os.ReadFile(filepath.Join(dir, a))
			return fmt.Sprint(len(text), sum(text), errno(err))
		}
	}
	return "list", func(_ int, dir string) string {
		entries, err := os.ReadDir(dir)
		return fmt.Sprint(entries, errno(err))
	}
}

func create(path string, flags int, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func (p *pair) open(side, slot int, path string) string {
	if p.files[slot][side] != nil {
		_ = p.files[slot][side].Close()
		p.files[slot][side] = nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err == nil {
		p.files[slot][side] = f
	}
	return errno(err)
}

func (p *pair) onFile(side, slot int, f func(*os.File) error) string {
	if p.files[slot][side] == nil {
		return "closed"
	}
	return errno(f(p.files[slot][side]))
}

func (p *pair) read(side, slot int) (result string) {
	return p.onFile(side, slot, func(f *os.File) error {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		text := make([]byte, st.Size())
		_, err = f.ReadAt(text, 0)
		result = sum(text)
		return err
	}) + result
}

func (p *pair) close() {
	for _, f := range p.files {
		for _, side := range f {
			if side != nil {
				_ = side.Close()
			}
		}
	}
}

func sum(text []byte) string {
	h := uint64(1469598103934665603)
	for _, c := range text {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%x", h)
}

// picture is a text of all that lies below a directory.
func picture(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		line := fmt.Sprint(strings.TrimPrefix(path, dir), " ", st.Mode())
		switch {
		case st.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprint(" ", len(text), " ", sum(text))
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + target
		}
		lines = append(lines, line)
		return nil
	})
	harness.Check(t, err)
	sort.Strings(lines)
	return strings.Join(lines[1:], "\n")
}
