package kills

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// task is the work of one process until the daemon dies.
type task struct {
	Root   string
	Seed   uint64
	ID     int
	Tree   *tree
	Policy *policy
	// Walk: it reads and lists the whole mount, and changes nothing.
	Walk bool
}

// outcome is what a process reports.
type outcome struct {
	Done  int    // operations that have returned what they must
	Error string // what is wrong, apart from the death of the daemon
}

// work is the life of a process: it makes operations until the daemon is dead.
func work(file string) error {
	unix.Umask(0)
	debug.SetPanicOnFault(true)
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var t task
	if err := gob.NewDecoder(f).Decode(&t); err != nil {
		return err
	}
	if t.Walk {
		for !isDead(t.Root) {
			t.walk()
		}
		return nil
	}
	return json.NewEncoder(os.Stdout).Encode(t.run())
}

func (t *task) run() (r outcome) {
	p := process{root: t.Root}
	g := newGenerator(t.Seed, t.ID, t.Tree, t.Policy)
	for ; ; r.Done++ {
		o := g.next()
		err := p.do(&o)
		switch {
		case o.Want == 0 && err == nil, o.Want != 0 && errors.Is(err, o.Want):
			t.Tree.apply(&o, t.Policy, false)
		case isOfDeath(err) && isDead(t.Root):
			return r
		default:
			r.Error = fmt.Sprintf("operation %d: %s: %v", r.Done, o, err)
			return r
		}
	}
}

// isOfDeath reports whether an operation may fail so when the daemon is dead. EIO is what fsync and
// close return if pages could not be written back.
func isOfDeath(err error) bool {
	for _, e := range []error{unix.ENOTCONN, unix.ECONNABORTED, unix.EIO, errFault} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isDead reports whether the daemon of a mount is dead.
func isDead(root string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(root, &st)
	return err == unix.ENOTCONN || err == unix.ECONNABORTED
}

// walk lists the mount, and reads the beginning of each file. Names come and go meanwhile.
func (t *task) walk() {
	_ = filepath.WalkDir(t.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			_, _ = f.Read(make([]byte, 4096))
			_ = f.Close()
		}
		return nil
	})
}
