package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	envSoak   = "FUSE_OVERLAY_SOAK" // how long TestSoak works, as 90s or 1h
	shortSoak = 8 * time.Second
	// maxInterval is the longest time between two samples. A short run has samplesAtLeast.
	maxInterval    = 5 * time.Second
	samplesAtLeast = 60
	// roundLimit is the longest time for a round of a load. A build from an empty cache takes minutes
	// on a machine with much other work.
	roundLimit = 15 * time.Minute
)

// load is a kind of work that is done again and again.
type load struct {
	name  string
	round func(s *soak, n int) error // the n-th time
	pause time.Duration              // between two rounds
	done  atomic.Int64               // rounds that have ended
}

// soak is one run.
type soak struct {
	t      *testing.T
	e      *harness.Env
	o      *harness.Overlay // the mount that is sampled
	stop   chan struct{}
	mu     sync.Mutex
	failed []error
}

// newSoak mounts a Debian root with a large directory below an empty upper.
func newSoak(t *testing.T, e *harness.Env) *soak {
	t.Helper()
	s := &soak{t: t, e: e, stop: make(chan struct{})}
	s.o = e.Overlay(t, "")
	s.o.Lowers = append(s.o.Lowers, harness.DebianRoot(t))
	fillLower(t, s.o.Lowers[0])
	s.o.Mount()
	s.o.StopWatchdog() // which would end a mount that is older than some minutes
	return s
}

// run has the loads work for a time, and samples the daemon.
func (s *soak) run(length time.Duration, loads []*load) *sampler {
	s.t.Helper()
	var workers, first sync.WaitGroup
	first.Add(len(loads))
	for _, l := range loads {
		workers.Go(func() { s.work(l, &first) })
	}
	first.Wait()
	samples := newSampler(s.o)
	interval := min(maxInterval, length/samplesAtLeast)
	for deadline := time.Now().Add(length); time.Now().Before(deadline) && !s.hasFailed(); time.Sleep(interval) {
		if err := samples.sample(); err != nil {
			s.fail(err)
		}
	}
	close(s.stop)
	ended := make(chan struct{})
	go func() { workers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(roundLimit + time.Minute):
		harness.AbortConnection(s.o.Minor)
		s.t.Fatal("a load hangs")
	}
	if err := errors.Join(s.failed...); err != nil {
		s.t.Fatalf("%v\n%s", err, samples)
	}
	return samples
}

// work makes rounds of a load until the run ends. The first one ends before the first sample.
func (s *soak) work(l *load, first *sync.WaitGroup) {
	warm := sync.OnceFunc(first.Done)
	defer warm()
	for n := 0; ; n++ {
		if err := l.round(s, n); err != nil {
			s.fail(fmt.Errorf("%s, round %d: %w", l.name, n, err))
			return
		}
		l.done.Add(1)
		warm()
		select {
		case <-s.stop:
			return
		case <-time.After(l.pause):
		}
	}
}

// fail notes an error, with the requests that the daemon has not answered.
func (s *soak) fail(err error) {
	pending, _ := harness.Run(harness.Program, "stats", s.o.Point)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Errorf("%w\n%s", err, pending))
}

func (s *soak) hasFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed) > 0
}

// shell runs a script in a folder of the mount.
func (s *soak) shell(script string) error {
	if out, err := harness.RunIn(s.o.Point, nil, roundLimit, "bash", "-euc", script); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, harness.Clip(out))
	}
	return nil
}

// TestSoak works for some seconds, or for FUSE_OVERLAY_SOAK. What the daemon uses must not
// be more in the last third of the run than in the two before. Then the layers are checked.
func TestSoak(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		length := shortSoak
		if text := os.Getenv(envSoak); text != "" {
			var err error
			length, err = time.ParseDuration(text)
			harness.Check(t, err)
		}
		s, loads := newSoak(t, e), allLoads()
		s.prepare()
		samples := s.run(length, loads)
		report := fmt.Sprintf("%v, %d samples, %d requests; rounds:", length, len(samples.figures[0].values), samples.all)
		for _, l := range loads {
			report += fmt.Sprintf(" %s %d", l.name, l.done.Load())
		}
		t.Logf("%s\n%s", report, samples)
		for _, growth := range growths(samples.figures) {
			t.Error(growth)
		}
		if rest := harness.ProcessesOf(harness.Program); len(rest) != 1 {
			t.Errorf("processes of the program: %v, want the daemon %d alone", rest, s.o.PID)
		}
		s.o.Unmount()
		out, err := exec.Command(harness.Program, "check", "--workdir", s.o.Work, s.o.Upper, s.o.Lowers[0], s.o.Lowers[1]).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("check of the layers: %v\n%s", err, out)
		}
	})
}

// A daemon that needs one more descriptor, and more memory, for each round of a load is found. The
// load keeps files open that have no name.
func TestSoakFindsGrowth(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		s := newSoak(t, e)
		var kept []*os.File
		samples := s.run(3*time.Second, []*load{{name: "leak", pause: 5 * time.Millisecond, round: func(s *soak, n int) error {
			path := s.o.Path(fmt.Sprint("kept", n))
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			kept = append(kept, f)
			return os.Remove(path)
		}}})
		for _, f := range kept {
			harness.Check(t, f.Close())
		}
		found := strings.Join(growths(samples.figures), "\n")
		if !strings.Contains(found, "descriptors but handles:") {
			t.Errorf("%d files without a name are open, and the growth found is: %s\n%s", len(kept), found, samples)
		}
		s.o.Unmount()
	})
}

// largeNames is the number of files in the large directory.
const largeNames = 20_000

// fillLower makes a directory with many names and a large file.
func fillLower(t *testing.T, lower string) {
	t.Helper()
	harness.Mkdir(t, lower+"/large")
	for i := range largeNames {
		fd, err := unix.Open(fmt.Sprintf("%s/large/n%05d", lower, i), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		harness.Check(t, err)
		harness.Check(t, unix.Close(fd))
	}
	harness.Write(t, lower+"/below", strings.Repeat("sixteen bytes of\n", 500_000))
}
