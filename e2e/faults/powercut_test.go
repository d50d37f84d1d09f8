package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A power cut during copy-ups. The file system is shut down without a write of its log, and
// recovers at the next mount. Every file of the upper is then absent or whole, and every file of
// the mount old or new.
func TestPowerCut(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano()))
		t.Logf("again with %s=%d", harness.EnvSeed, seed)
		for _, c := range []struct {
			name, fstype, options string
			lower                 lowerPlace
			mkfs                  []string
		}{
			{"ext4", "ext4", "commit=1", onAnotherDisk, nil},
			{"ext4, the lower beside", "ext4", "commit=1", onTheUppersDisk, nil},
			{"ext4 data=writeback", "ext4", "commit=1,data=writeback", onAnotherDisk, nil},
			{"ext4 with blocks of 1 KiB", "ext4", "commit=1", onAnotherDisk, []string{"-b", "1024"}},
			{"xfs", "xfs", "", onAnotherDisk, nil},
			{"xfs, clones", "xfs", "", onTheUppersDisk, nil},
			{"btrfs", "btrfs", "", onAnotherDisk, nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				whole := 0
				for round := range 3 {
					p := &powerCut{t: t, e: harness.NewEnv(t, e.Mode), r: r, fstype: c.fstype, options: c.options}
					p.prepare(c.lower, c.mkfs)
					p.cut()
					n := p.check()
					whole += n
					t.Logf("round %d: %d of %d files had been copied up, %d of them are in the upper", round, p.done.Load(),
						len(p.files), n)
				}
				if whole == 0 {
					t.Error("no copy-up is in the upper: nothing was tested")
				}
			})
		}
	})
}

// powerCut is one round.
type powerCut struct {
	t               *testing.T
	e               *harness.Env
	r               *rand.Rand
	fstype, options string
	image, disk     string // the loop device's file, and where it is mounted
	o               *harness.Overlay
	files           []*cutFile
	done            atomic.Int64 // copy-ups that have been answered
}

// cutFile is one file of the lower, and the change of it.
type cutFile struct {
	path    string // below the root of a layer
	content []byte
	mode    uint32
	owner   int
	note    string // user.note; empty: none
	change  int    // see apply
}

const (
	cutFiles    = 400
	cutDirs     = 12
	cutAppended = "appended to it"
	cutMode     = 0o4711
)

// lowerPlace is the file system of the lower.
type lowerPlace int

const (
	onAnotherDisk lowerPlace = iota
	onTheUppersDisk
)

// prepare makes the file system with an empty upper, and a lower with random content.
func (p *powerCut) prepare(place lowerPlace, mkfs []string) {
	p.t.Helper()
	p.o = p.e.Overlay(p.t)
	p.image, p.disk = filepath.Join(p.e.Dir, "image"), filepath.Join(p.e.Dir, "disk")
	harness.Mkdir(p.t, p.disk)
	harness.Check(p.t, os.WriteFile(p.image, nil, 0o600))
	harness.Check(p.t, os.Truncate(p.image, 400<<20))
	_, err := harness.Run("mkfs."+p.fstype, append(append([]string{"-q"}, mkfs...), p.image)...)
	harness.Check(p.t, err)
	p.mountDisk()
	lower := filepath.Join(p.e.Dir, "lower")
	if place == onTheUppersDisk {
		lower = filepath.Join(p.disk, "lower")
	}
	p.o.Lowers, p.o.Upper, p.o.Work = []string{lower}, filepath.Join(p.disk, "upper"), filepath.Join(p.disk, "work")
	harness.Mkdir(p.t, p.o.Upper, p.o.Work)
	for i := range cutDirs {
		dir := filepath.Join(lower, fmt.Sprint("d", i))
		harness.Mkdir(p.t, dir)
		harness.Check(p.t, unix.Setxattr(dir, "user.note", []byte(dir), 0))
		harness.Check(p.t, os.Chown(dir, 5, i))
		harness.Check(p.t, os.Chmod(dir, 0o751))
	}
	for i := range cutFiles {
		f := &cutFile{path: fmt.Sprintf("d%d/f%d", p.r.IntN(cutDirs), i), content: p.randomBytes(), mode: 0o644,
			change: p.r.IntN(4)}
		if p.r.IntN(3) == 0 {
			f.mode, f.owner, f.note = 0o640, 1000+i, strings.Repeat("n", 1+p.r.IntN(500))
		}
		p.files = append(p.files, f)
		path := filepath.Join(lower, f.path)
		harness.Check(p.t, os.WriteFile(path, f.content, 0o600))
		if f.note != "" {
			harness.Check(p.t, unix.Setxattr(path, "user.note", []byte(f.note), 0))
		}
		harness.Check(p.t, os.Chown(path, f.owner, f.owner))
		harness.Check(p.t, unix.Chmod(path, f.mode))
	}
	harness.Shell(p.t, "", "sync -f "+p.disk)
}

// randomBytes is content without a zero byte, mostly up to some blocks long.
func (p *powerCut) randomBytes() []byte {
	size := 1 + p.r.IntN(20_000)
	if p.r.IntN(20) == 0 {
		size *= 50
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(1 + p.r.IntN(255))
	}
	return b
}

func (p *powerCut) mountDisk() {
	p.t.Helper()
	options := "loop"
	if p.options != "" {
		options += "," + p.options
	}
	if out, err := harness.Run("mount", "-t", p.fstype, "-o", options, p.image, p.disk); err != nil {
		p.t.Fatalf("mounting the %s: %v\n%s", p.fstype, err, out)
	}
	p.t.Cleanup(func() { _ = unix.Unmount(p.disk, unix.MNT_DETACH) })
}

// unmountDisk unmounts, so that the next mount is a new one, which recovers. The clone of the mount
// in the killed daemon holds the old file system for a moment. If another mount namespace of the
// machine has a copy of the mount, the old one stays, and a copy of the image is mounted in its
// place.
func (p *powerCut) unmountDisk() {
	p.t.Helper()
	harness.Check(p.t, harness.UnmountAt(p.disk))
	if testkit.WaitReleased(p.image, 10*time.Second) {
		return
	}
	p.t.Logf("%s is still in use: on with a copy", p.image)
	harness.Shell(p.t, "", "cp --sparse=always "+p.image+" "+p.image+"2")
	p.image += "2"
	if p.fstype == "xfs" {
		p.options = "nouuid"
	}
}

// apply makes the change that copies f up.
func (f *cutFile) apply(root string) error {
	path := filepath.Join(root, f.path)
	switch f.change {
	case 0:
		return os.Chtimes(path, time.Now(), time.Now())
	case 1:
		return unix.Chmod(path, cutMode)
	case 2:
		return unix.Setxattr(path, "user.new", []byte("new"), 0)
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteString(cutAppended)
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}

// cut copies up in several threads, while the fsync of another program commits the journal again
// and again. It shuts the file system down after a random number of copy-ups.
func (p *powerCut) cut() {
	p.t.Helper()
	p.o.Mount()
	disk, err := os.Open(p.disk)
	harness.Check(p.t, err)
	defer disk.Close()
	todo := make(chan *cutFile)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() { // errors are expected once the file system is down
			for f := range todo {
				if f.apply(p.o.Point) == nil {
					p.done.Add(1)
				}
			}
		})
	}
	workers.Go(func() {
		defer close(todo)
		for _, f := range p.files {
			select {
			case todo <- f:
			case <-stop:
				return
			}
		}
	})
	workers.Go(func() { p.commit(stop) })
	enough := int64(cutFiles/4 + p.r.IntN(cutFiles/2))
	if !harness.Eventually(30*time.Second, func() bool { return p.done.Load() >= enough }) {
		p.t.Errorf("%d copy-ups in 30 s, want %d", p.done.Load(), enough)
	}
	const shutdown, withoutLog = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)
	err = unix.IoctlSetPointerInt(int(disk.Fd()), shutdown, withoutLog)
	close(stop)
	workers.Wait()
	disk.Close()
	p.o.Crash()
	p.unmountDisk()
	if err == unix.ENOTTY {
		p.t.Skipf("%s has no shutdown on this kernel", p.fstype)
	}
	harness.Check(p.t, err)
}

// commit makes the file system commit its journal.
func (p *powerCut) commit(stop <-chan struct{}) {
	f, err := os.Create(filepath.Join(p.disk, "other"))
	if err != nil {
		p.t.Error(err)
		return
	}
	defer f.Close()
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		if _, err := f.Write([]byte("x")); err != nil || f.Sync() != nil {
			return // the file system is down
		}
	}
}

// check checks the recovered file system, and counts the files in the upper.
func (p *powerCut) check() (whole int) {
	p.t.Helper()
	p.mountDisk()
	for _, f := range p.files {
		path := filepath.Join(p.o.Upper, f.path)
		if _, err := os.Lstat(path); err == nil {
			whole++
			p.checkFile(path, f)
		}
	}
	p.checkDirs(p.o.Upper)
	p.o.Mount()
	for _, f := range p.files {
		p.checkFile(p.o.Path(f.path), f)
	}
	p.checkDirs(p.o.Point)
	if rest := harness.WorkRest(p.o.Work); len(rest) > 0 {
		p.t.Errorf("the work directory still holds %v", rest)
	}
	for _, f := range p.files { // and all of it can be changed
		harness.Check(p.t, f.apply(p.o.Point))
	}
	p.o.Unmount()
	p.unmountDisk()
	return whole
}

// checkFile accepts a whole file, as it was or with its change.
func (p *powerCut) checkFile(path string, f *cutFile) {
	p.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		p.t.Error(err)
		return
	}
	if same := len(got) - len(bytes.TrimPrefix(got, f.content)); same == 0 || !f.mayEnd(got[same:]) {
		p.t.Errorf("%s: %d bytes, of which %d are zero; want the %d bytes of the lower", path, len(got),
			bytes.Count(got, []byte{0}), len(f.content))
	}
	st := harness.Lstat(p.t, path)
	if mode := st.Mode & 0o7777; mode != f.mode && (f.change != 1 || mode != cutMode) {
		p.t.Errorf("%s: mode %o, want %o", path, mode, f.mode)
	}
	if st.Uid != uint32(f.owner) || st.Gid != uint32(f.owner) {
		p.t.Errorf("%s: owner %d:%d, want %d", path, st.Uid, st.Gid, f.owner)
	}
	if note, err := harness.GetXattr(path, "user.note"); note != f.note || f.note != "" && err != nil {
		p.t.Errorf("%s: note of %d bytes (%v), want %d", path, len(note), err, len(f.note))
	}
}

// mayEnd reports whether a file may end like this. The appended data is not synced: it may be
// missing, cut, or zero in a block that the file had before.
func (f *cutFile) mayEnd(tail []byte) bool {
	if f.change != 3 {
		return len(tail) == 0
	}
	for i, c := range tail {
		if i >= len(cutAppended) || c != 0 && c != cutAppended[i] {
			return false
		}
	}
	return true
}

// checkDirs checks the directories of the upper.
func (p *powerCut) checkDirs(root string) {
	p.t.Helper()
	for i := range cutDirs {
		dir := filepath.Join(root, fmt.Sprint("d", i))
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil {
			continue
		}
		note, _ := harness.GetXattr(dir, "user.note")
		if st.Mode&0o7777 != 0o751 || st.Uid != 5 || st.Gid != uint32(i) || note != filepath.Join(p.o.Lowers[0],
			fmt.Sprint("d", i)) {
			p.t.Errorf("%s: mode %o, owner %d:%d, note %q", dir, st.Mode, st.Uid, st.Gid, note)
		}
	}
}
