package fsx

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Config describes a run.
type Config struct {
	// Dir is the folder in which files are made, read and written.
	Dir string
	// Lower is the folder that Prepare has filled, and that Dir shows. If it is empty, all files are
	// new.
	Lower string
	// Upper is the folder of changed files. If it is empty, Run does not check it.
	Upper string

	// Seed and the number of a round determine every operation.
	Seed uint64
	// First is the number of the first round, Rounds the number of rounds.
	First, Rounds int

	// Helper makes the command of a process that calls Serve.
	Helper func() *exec.Cmd

	// Align is the unit of offsets and sizes with O_DIRECT.
	Align int64
	// Missing are the modes of fallocate that fail with EOPNOTSUPP and change nothing. All others must
	// work.
	Missing []int
	// Unmount and Mount, if they are set, end the file system of Dir while no file is open, and mount
	// it again.
	Unmount, Mount func()
	// DropCaches: sometimes the caches of the machine are dropped, which needs root.
	DropCaches bool
	// WriteFirst is the size from which a file of Lower is first opened for writing. It is for mounts
	// in which a reader keeps the data that the file had at its open.
	WriteFirst int64
	// WriteBackFirst avoids a fault of the kernel: no file grows while a page of it is dirty through a
	// mapping.
	WriteBackFirst bool
	// Appends makes operations of that kind only.
	Appends bool

	// spoil is called after each operation: tests of this package damage files by it.
	spoil func(o *op, path string)
}

// OpsOfRound is the number of operations of a round, without those that check its files at the end.
const OpsOfRound = 600

// Failure is a difference between a file and the model.
type Failure struct {
	Seed  uint64
	Round int
	File  string // the name of the file that is not right; empty: of none
	What  error
	Log   []string // the operations of the round, the last one last
}

// Error shows the last operations on the file that differs.
func (f *Failure) Error() string {
	const tail = 80
	var log []string
	for _, line := range f.Log {
		if strings.Contains(line, f.File) {
			log = append(log, line)
		}
	}
	last := log[max(0, len(log)-tail):]
	return fmt.Sprintf("seed %d, round %d: %v; the last %d of %d operations on %s:\n%s", f.Seed, f.Round, f.What,
		len(last), len(log),
		f.File, strings.Join(last, "\n"))
}

func (f *Failure) Unwrap() error { return f.What }

// Done is the result of a run.
type Done struct {
	// Ops counts operations by their name.
	Ops map[string]int
	// Total counts all.
	Total int

	kept []*file
}

// doer makes operations, here or in another process.
type doer interface{ do(o *op) result }

// round is the state of one round.
type round struct {
	cfg        *Config
	number     int
	rng        *rand.Rand
	files      []*file
	maxSize    int64
	n          uint64
	kind       kind // that is being built
	disturbing [workers]bool
	doers      *[workers]doer
	event      func(*round) error // nil: none
	eventAt    int
	log        []string
	wrong      string // the file that is not right
	done       *Done
}

// Run makes the rounds. The error is a *Failure if a file differs from the model.
func Run(cfg Config) (done *Done, err error) {
	local := newWorker(cfg.Dir)
	defer local.closeAll()
	doers := [workers]doer{local}
	for i := 1; i < workers; i++ {
		h, e := startHelper(cfg.Dir, cfg.Helper())
		if e != nil {
			return nil, e
		}
		doers[i] = h
		defer func() { err = errors.Join(err, doers[i].(*helper).stop()) }()
	}
	done = &Done{Ops: map[string]int{}}
	for i := range cfg.Rounds {
		r := newRound(&cfg, cfg.First+i, &doers, done)
		if err := r.run(); err != nil {
			return done, &Failure{cfg.Seed, r.number, r.wrong, err, r.log}
		}
	}
	return done, nil
}

func newRound(cfg *Config, number int, doers *[workers]doer, done *Done) *round {
	r := &round{cfg: cfg, number: number, doers: doers, done: done, rng: rand.New(rand.NewPCG(cfg.Seed, uint64(number)))}
	r.n = r.rng.Uint64N(1 << 30)
	r.maxSize = []int64{8 << 10, 8 << 10, 32 << 10, 128 << 10, 256 << 10, 1 << 20}[r.rng.IntN(6)]
	if cfg.Appends {
		r.maxSize = 64 << 10
	}
	r.drawEvent()
	return r
}

func (r *round) run() error {
	if err := r.begin(); err != nil {
		return err
	}
	for i := range OpsOfRound {
		if r.event != nil && i == r.eventAt {
			if err := r.event(r); err != nil {
				return err
			}
		}
		w, o := r.next()
		var others []simultaneous
		if w == 0 && r.rng.IntN(3) == 0 {
			others = r.beside(&o)
		}
		if err := r.doAtOnce(w, &o, others); err != nil {
			return err
		}
	}
	return r.end()
}

// do makes one operation and compares.
func (r *round) do(w int, o *op) error {
	r.enter(w, o, "")
	res := r.doers[w].do(o)
	return r.judge(w, o, &res)
}

// enter numbers an operation and appends it to the log.
func (r *round) enter(w int, o *op, note string) {
	r.n++
	o.N = r.n
	r.log = append(r.log, fmt.Sprintf("worker %d: %v (size %#x)%s", w, o, r.files[o.File].size(), note))
}

// judge compares the result of an operation with the model, and changes the model.
func (r *round) judge(w int, o *op, res *result) error {
	if r.cfg.spoil != nil {
		r.cfg.spoil(o, filepath.Join(r.cfg.Dir, o.Name))
	}
	r.done.Ops[o.counted()]++
	r.done.Total++
	if err := r.apply(w, o, res); err != nil {
		r.wrong = r.files[o.File].name
		return fmt.Errorf("%v: %w", o, err)
	}
	return nil
}

// creations are the ways in which files are made.
var creations = []int{
	unix.O_RDWR | unix.O_CREAT | unix.O_EXCL, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC,
	unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND,
	unix.O_RDWR | unix.O_CREAT | unix.O_APPEND,
	unix.O_RDWR | unix.O_CREAT | unix.O_DIRECT,
}

// begin makes or opens the files.
func (r *round) begin() error {
	if r.cfg.Lower != "" {
		for _, l := range lowerFiles(r.cfg.Seed, r.number) {
			r.files = append(r.files, &file{name: l.name, data: l.content()})
			first := op{Kind: opOpen, File: len(r.files) - 1, Name: l.name, Slot: fdSlots - 1, Flags: r.firstOpen(l.size),
				Size: true}
			if err := r.do(0, &first); err != nil {
				return err
			}
		}
	}
	for i := range 1 + r.rng.IntN(2) {
		name := fmt.Sprintf("r%d-new%d", r.number, i)
		r.files = append(r.files, &file{name: name})
		o := op{Kind: opOpen, File: len(r.files) - 1, Name: name, Flags: creations[r.rng.IntN(len(creations))], Size: true}
		if err := r.do(r.rng.IntN(workers), &o); err != nil {
			return err
		}
	}
	return nil
}

// firstOpen is the way of the first open of a lower file. With passthrough it determines the way of
// all other opens while the file is open.
func (r *round) firstOpen(size int64) int {
	if r.cfg.WriteFirst > 0 && size >= r.cfg.WriteFirst {
		return unix.O_RDWR
	}
	return []int{unix.O_RDONLY, unix.O_RDONLY, unix.O_RDWR}[r.rng.IntN(3)]
}

// keepEach: of so many rounds one does not remove its files, so that they can be checked after the
// unmount.
const keepEach = 8

// end checks all bytes of every file, by all processes and in the upper, and removes the files.
func (r *round) end() error {
	if err := r.stopDisturbers(); err != nil {
		return err
	}
	for i, f := range r.files {
		if err := r.lookAt(i, f); err != nil {
			return err
		}
	}
	if err := r.closeAll(); err != nil {
		return err
	}
	for i, f := range r.files {
		if err := r.readBy(0, i, f); err != nil {
			return err
		}
		if r.number%keepEach == 0 {
			r.done.kept = append(r.done.kept, f)
		} else if err := r.do(0, &op{Kind: opRemove, File: i, Name: f.name}); err != nil {
			return err
		}
	}
	return nil
}

// lookAt compares a file that is open.
func (r *round) lookAt(i int, f *file) error {
	for w := range workers {
		if err := r.readBy(w, i, f); err != nil {
			return err
		}
	}
	if r.cfg.Upper == "" || !f.changed {
		return nil
	}
	if f.fds[0][0].open {
		if err := r.do(0, &op{Kind: opClose, File: i, Name: f.name}); err != nil {
			return err
		}
	}
	for _, o := range []op{{Kind: opOpen, Flags: unix.O_RDWR}, {Kind: opWriteBack}, {Kind: opClose}} {
		o.File, o.Name = i, f.name
		if err := r.do(0, &o); err != nil {
			return err
		}
	}
	r.wrong = f.name
	return f.checkIn(r.cfg.Upper)
}

// readBy makes a worker read a whole file by a new descriptor.
func (r *round) readBy(w, i int, f *file) error {
	if f.fds[w][fdSlots-1].open {
		if err := r.do(w, &op{Kind: opClose, File: i, Name: f.name, Slot: fdSlots - 1}); err != nil {
			return err
		}
	}
	for _, o := range []op{
		{Kind: opOpen, Flags: unix.O_RDONLY, Size: true}, {Kind: opRead, Len: f.size() + pageSize}, {Kind: opClose},
	} {
		o.File, o.Name, o.Slot = i, f.name, fdSlots-1
		if err := r.do(w, &o); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) closeAll() error {
	for i, f := range r.files {
		for w := range workers {
			for n, fd := range f.fds[w] {
				if fd.open {
					if err := r.do(w, &op{Kind: opClose, File: i, Name: f.name, Slot: n}); err != nil {
						return err
					}
				}
			}
			for n, m := range f.maps[w] {
				if m.len > 0 {
					if err := r.do(w, &op{Kind: opUnmap, File: i, Name: f.name, Slot: n}); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// checkIn compares a file in a folder.
func (f *file) checkIn(dir string) error {
	got, err := os.ReadFile(filepath.Join(dir, f.name))
	if err == nil {
		err = compare(0, got, f.data)
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", f.name, dir, err)
	}
	return nil
}

// CheckKept compares the files that the run has not removed, in the folder of another mount.
func (d *Done) CheckKept(dir string) error {
	return d.checkKept(dir, func(*file) bool { return true })
}

// CheckChanged compares those of the files that the run has not removed that it has changed, in an
// upper.
func (d *Done) CheckChanged(upper string) error {
	return d.checkKept(upper, func(f *file) bool { return f.changed })
}

func (d *Done) checkKept(dir string, selected func(*file) bool) error {
	if len(d.kept) == 0 {
		return errors.New("the run has removed all files")
	}
	for _, f := range d.kept {
		if selected(f) {
			if err := f.checkIn(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// lowerFile is a file of the layer below.
type lowerFile struct {
	name string
	seed uint64
	size int64
}

// lowerFiles are the lower files of a round.
func lowerFiles(seed uint64, number int) []lowerFile {
	rng := rand.New(rand.NewPCG(seed, uint64(number)|1<<40))
	files := make([]lowerFile, rng.IntN(3))
	for i := range files {
		files[i] = lowerFile{fmt.Sprintf("r%d-low%d", number, i), rng.Uint64N(1 << 30), rng.Int64N(1 << (3 + rng.IntN(16)))}
	}
	return files
}

func (l lowerFile) content() []byte { return append([]byte(nil), bytesOf(l.seed, l.size)...) }

// Prepare makes the files of a layer below for the rounds of a run.
func Prepare(dir string, seed uint64, first, rounds int) error {
	for i := range rounds {
		for _, l := range lowerFiles(seed, first+i) {
			if err := os.WriteFile(filepath.Join(dir, l.name), l.content(), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
