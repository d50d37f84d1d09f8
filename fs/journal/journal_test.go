package journal

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is that of a journal. The kernel gives it pages when they are written.
func memory(t *testing.T) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return mem
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reopen opens the journal as the next process does.
func reopen(t *testing.T, mem []byte) (*Journal, map[uint64]Node) {
	t.Helper()
	j, err := Load(mem)
	check(t, err)
	list, _ := j.Nodes()
	nodes := map[uint64]Node{}
	for _, n := range list {
		nodes[n.ID] = n
	}
	return j, nodes
}

func TestNodes(t *testing.T) {
	mem := memory(t)
	j := New(mem)
	check(t, j.SetSetup([]byte("setup")))
	long := strings.Repeat("n", 255)
	dir := Node{ID: 1, Kind: unix.S_IFDIR, Descriptor: -1, Layers: []uint16{0, 1, 300}}
	file := Node{ID: 2, Name: Name{1, "file"}, Ino: 7, Kind: unix.S_IFREG, Layer: 1, Descriptor: -1}
	check(t, j.Add(&dir))
	check(t, j.Add(&file))
	file.Name.Text, file.Other, file.Layer, file.Dev, file.Inode = long, []Name{{1, "b"}, {1, long}}, 0, 3, 4
	file.Flags, file.Descriptor = Unlinked, 70
	check(t, j.Update(&file))
	check(t, j.Update(&Node{ID: 1, Kind: unix.S_IFDIR, Descriptor: -1, Ino: 9}))
	check(t, j.Update(&Node{ID: 3, Descriptor: -1})) // was never added

	j, nodes := reopen(t, mem)
	dir.Ino = 9
	want := map[uint64]Node{1: dir, 2: file}
	for id := range want {
		got := nodes[id]
		if id == 2 { // the order of further names does not count
			got.Other, file.Other = sorted(got.Other), sorted(file.Other)
		}
		if w := want[id]; !reflect.DeepEqual(got, w) {
			t.Errorf("node %d:\n got %+v\nwant %+v", id, got, w)
		}
	}
	if len(nodes) != 2 || string(j.Setup()) != "setup" {
		t.Errorf("%d nodes, setup %q", len(nodes), j.Setup())
	}
	if fds := j.Descriptors(); !reflect.DeepEqual(fds, []int{70}) {
		t.Errorf("kept: %v", fds)
	}
	j.Remove(2)
	if fds := j.Descriptors(); len(fds) > 0 {
		t.Errorf("kept after the end of the node: %v", fds)
	}
	if _, last := j.Nodes(); last != 2 {
		t.Errorf("the largest id is %d, want 2", last)
	}
}

func sorted(names []Name) []Name {
	if len(names) == 2 && names[0].Text > names[1].Text {
		names[0], names[1] = names[1], names[0]
	}
	return names
}

// What is freed is used again, also by the next process.
func TestRoom(t *testing.T) {
	mem := memory(t)
	j := New(mem)
	check(t, j.SetSetup(nil))
	for round := range 3 {
		for id := uint64(1); id <= 100; id++ {
			name := strings.Repeat("x", int(id))
			check(t, j.Add(&Node{ID: id, Name: Name{1, name}, Other: []Name{{1, name}}, Descriptor: -1}))
			check(t, j.Update(&Node{ID: id, Name: Name{1, "y"}, Descriptor: -1}))
		}
		for id := uint64(1); id <= 100; id++ {
			j.Remove(id)
		}
		if j.head.nodes > 100 || j.head.records > 202 || j.head.long > 202 {
			t.Errorf("round %d: %d nodes, %d records, %d long ones were used", round, j.head.nodes, j.head.records, j.head.long)
		}
		j, _ = reopen(t, mem)
	}
}

// References of replies that were not sent are taken back, and what the kernel has given back is
// subtracted.
func TestGrants(t *testing.T) {
	mem := memory(t)
	j := New(mem)
	check(t, j.SetSetup(nil))
	check(t, j.Add(&Node{ID: 1, Descriptor: -1}))
	sent, lost := j.Take(), j.Take()
	request := func(a *Area, length byte) { a.Request[0] = length }
	request(sent, 40)
	sent.Grant([]uint64{1, 1, 1})
	sent.Done()
	request(lost, 44)
	lost.Grant([]uint64{1, 1})
	lost.SetMark(5)
	j.Forget(1, 1)

	j, nodes := reopen(t, mem)
	if nodes[1].Granted != 4 {
		t.Errorf("%d references, want 4", nodes[1].Granted)
	}
	list := j.Interrupted()
	if len(list) != 1 || len(list[0].Request) != 44 || list[0].Mark != 5 {
		t.Fatalf("interrupted: %+v", list)
	}
	list[0].Revoke()
	list[0].Revoke() // again, after another death
	j, nodes = reopen(t, mem)
	if nodes[1].Granted != 2 {
		t.Errorf("%d references after the reply was revoked, want 2", nodes[1].Granted)
	}
	j.ClearAreas()
	if list := j.Interrupted(); len(list) > 0 {
		t.Errorf("interrupted after all were cleared: %+v", list)
	}
}

func TestOtherVersion(t *testing.T) {
	mem := memory(t)
	j := New(mem)
	if _, err := Load(mem); err == nil {
		t.Error("a journal that is not complete was loaded")
	}
	check(t, j.SetSetup(nil))
	j.head.version++
	if _, err := Load(mem); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a journal of another version: %v", err)
	}
	if _, err := Load(mem[:100]); err == nil {
		t.Error("a journal of another size was loaded")
	}
}

// A mount whose processes die at once is given up.
func TestDeaths(t *testing.T) {
	j := New(memory(t))
	now := time.Now()
	for range maxDeaths {
		j.Serve(1, now)
		check(t, j.Begin(now.Add(time.Millisecond)))
	}
	if err := j.Begin(now.Add(time.Millisecond)); err == nil {
		t.Error("the mount is not given up")
	}
	check(t, j.Begin(now.Add(time.Second)))
	check(t, j.Begin(now.Add(time.Millisecond)))
}

func TestKeep(t *testing.T) {
	j := New(memory(t))
	for _, fd := range []int{-1, KeptBytes * 8} {
		if j.Keep(fd) == nil {
			t.Errorf("descriptor %d is kept", fd)
		}
	}
	check(t, j.Keep(KeptBytes*8-1))
	if j.SetSetup(make([]byte, setupSize+1)) == nil {
		t.Error("a setup without room is stored")
	}
}
