package disklog

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// image makes an image of these blocks, each filled with one byte.
func image(t *testing.T, fill ...byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	var all []byte
	for _, c := range fill {
		all = append(all, bytes.Repeat([]byte{c}, blockSize)...)
	}
	testkit.Must(t, os.WriteFile(path, all, 0o600))
	return path
}

func write(block int64, fill ...byte) Entry {
	e := Entry{Kind: Write, Offset: block * blockSize}
	for _, c := range fill {
		e.Data = append(e.Data, bytes.Repeat([]byte{c}, blockSize)...)
	}
	e.Size = int64(len(e.Data))
	return e
}

// after is the image after a cut, by the first byte of each block.
func after(t *testing.T, p *Player, c Cut) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cut")
	testkit.Must(t, p.WriteImage(c, path))
	all, err := os.ReadFile(path)
	testkit.Must(t, err)
	var first []byte
	for block := range slices.Chunk(all, blockSize) {
		for _, c := range block {
			if c != block[0] {
				t.Errorf("block %d is torn", len(first))
				break
			}
		}
		first = append(first, block[0])
	}
	return string(first)
}

func TestCutsKeepWhatWasFlushed(t *testing.T) {
	log := []Entry{
		write(0, 'A', 'B'), {Kind: Mark, Data: []byte("one"), Size: 3}, {Kind: Flush},
		write(1, 'C', 'D'), {Kind: Zero, Offset: 0, Size: blockSize},
	}
	base := image(t, 'a', 'b', 'c', 'd')
	play := func() *Player {
		p, err := NewPlayer(base, log)
		testkit.Must(t, err)
		return p
	}
	p := play()
	for _, tt := range []struct {
		c    Cut
		want string
	}{
		{Cut{Entries: 0, Seed: 5}, "abcd"}, {Cut{Entries: 2}, "ABcd"}, {Cut{Entries: 3}, "ABcd"}, {Cut{Entries: 3, Seed: 9}, "ABcd"},
		{Cut{Entries: 4}, "ACDd"}, {Cut{Entries: 5}, "\x00CDd"},
	} {
		if got := after(t, p, tt.c); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.c, got, tt.want)
		}
	}
	if p.WriteImage(Cut{Entries: 1}, filepath.Join(t.TempDir(), "cut")) == nil {
		t.Error("a cut before the last one is no error")
	}

	p = play()
	seen := map[string]bool{}
	for seed := range uint64(300) {
		seen[after(t, p.Fork(), Cut{Entries: 5, Seed: seed + 1})] = true
	}
	if got := after(t, p, Cut{}); got != "abcd" {
		t.Errorf("the forks have changed what was forked: %q", got)
	}
	// Each of the last three blocks is old or new, in all combinations, and the others are as they
	// were.
	for _, first := range "A\x00" {
		for _, second := range "BC" {
			for _, third := range "cD" {
				all := string([]rune{first, second, third, 'd'})
				if !seen[all] {
					t.Errorf("no cut leaves %q", all)
				}
				delete(seen, all)
			}
		}
	}
	if len(seen) > 0 {
		t.Errorf("impossible images: %v", seen)
	}
}

func TestWritesBelowABlock(t *testing.T) {
	base := image(t, 'a', 'b')
	p, err := NewPlayer(base, []Entry{{Kind: Write, Offset: blockSize - 2, Size: 4, Data: []byte("wxyz")}, {Kind: Flush}})
	testkit.Must(t, err)
	path := filepath.Join(t.TempDir(), "cut")
	testkit.Must(t, p.WriteImage(Cut{Entries: 2}, path))
	got, err := os.ReadFile(path)
	testkit.Must(t, err)
	if part := string(got[blockSize-3 : blockSize+3]); part != "awxyzb" {
		t.Errorf("got %q", part)
	}
}

func TestChoose(t *testing.T) {
	log := make([]Entry, 100)
	for i := range log {
		log[i] = write(0, 'x')
	}
	for _, i := range []int{10, 50, 99} {
		log[i] = Entry{Kind: Flush}
	}
	r := rand.New(rand.NewPCG(1, 2))
	cuts := Choose(log, 20, r)
	if len(cuts) != 20 || !slices.IsSortedFunc(cuts, func(a, b Cut) int { return a.Entries - b.Entries }) {
		t.Errorf("%d cuts: %v", len(cuts), cuts)
	}
	for _, n := range []int{11, 51, 100} {
		if !slices.Contains(cuts, Cut{Entries: n}) {
			t.Errorf("no cut after the flush that is entry %d", n)
		}
	}
	if cuts := Choose(log, 4, r); len(cuts) != 4 {
		t.Errorf("%d cuts, want 4", len(cuts))
	}
	if got := (Cut{Entries: 2}).Marks([]Entry{{Kind: Mark, Data: []byte("m")}, {Kind: Flush}, {Kind: Mark}}); !slices.Equal(got, []string{"m"}) {
		t.Errorf("marks: %q", got)
	}
}

// What a mount gets is in the image and in the log, in its order.
func TestServe(t *testing.T) {
	base := image(t, 'a', 'b', 'c')
	mnt, path := t.TempDir(), filepath.Join(t.TempDir(), "log")
	server, err := Serve(mnt, base, path)
	testkit.Must(t, err)
	use := func() {
		f, err := os.OpenFile(filepath.Join(mnt, Disk), os.O_RDWR, 0)
		testkit.Must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("new"), blockSize)
		testkit.Must(t, err)
		testkit.Must(t, SetMark(mnt, "written"))
		testkit.Must(t, f.Sync())
		testkit.Must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, blockSize))
		testkit.WantError(t, "allocation", unix.Fallocate(int(f.Fd()), 0, 0, blockSize), unix.EOPNOTSUPP)
		got := make([]byte, 3)
		_, err = f.ReadAt(got, blockSize)
		testkit.Must(t, err)
		if string(got) != "new" {
			t.Errorf("read %q", got)
		}
	}
	use()
	testkit.Must(t, unix.Unmount(mnt, 0))
	testkit.Must(t, server.Wait())
	log, err := Read(path)
	testkit.Must(t, err)
	want := []Entry{
		{Kind: Write, Offset: blockSize, Size: 3, Data: []byte("new")}, {Kind: Mark, Size: 7, Data: []byte("written")},
		{Kind: Flush}, {Kind: Zero, Size: blockSize},
	}
	if !slices.EqualFunc(log, want, func(a, b Entry) bool {
		return a.Kind == b.Kind && a.Offset == b.Offset && a.Size == b.Size && bytes.Equal(a.Data, b.Data)
	}) {
		t.Errorf("log %v, want %v", log, want)
	}
	all, err := os.ReadFile(base)
	testkit.Must(t, err)
	if !isZero(all[:blockSize]) || string(all[blockSize:blockSize+4]) != "newb" {
		t.Error("the image has not got the changes")
	}
	testkit.Must(t, os.Truncate(path, 30))
	if _, err := Read(path); err == nil {
		t.Error("half a log is no error")
	}
}
