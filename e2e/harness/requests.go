package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counts is how many requests of each kind the kernel has sent.
type counts map[string]int64

func (c counts) minus(before counts) counts {
	d := counts{}
	for op, n := range c {
		if n != before[op] {
			d[op] = n - before[op]
		}
	}
	return d
}

func (c counts) String() string {
	var parts []string
	for _, op := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", op, c[op]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (c counts) total() int64 {
	var n int64
	for _, m := range c {
		n += m
	}
	return n
}

// requests asks the daemon by SIGUSR1 and waits for its answer in the log.
func (o *overlay) requests() counts {
	o.t.Helper()
	needDaemon(o.t)
	before := len(requestLines(o.t, o.log))
	check(o.t, syscall.Kill(o.pid, syscall.SIGUSR1))
	var lines []counts
	if !eventually(5*time.Second, func() bool {
		lines = requestLines(o.t, o.log)
		return len(lines) > before
	}) {
		text, _ := os.ReadFile(o.log)
		o.t.Fatalf("no answer to SIGUSR1 in %s:\n%s", o.log, text)
	}
	return lines[len(lines)-1]
}

// during counts the requests that fn causes.
func (o *overlay) during(fn func()) counts {
	o.t.Helper()
	before := o.requests()
	fn()
	return o.requests().minus(before)
}

// steady counts the requests that fn causes when the kernel has not dropped pages: those it has taken back since the last
// run, for want of memory, it reads again (READ, READDIRPLUS), and doubts the atime of their files in the run after that
// (GETATTR).
func (o *overlay) steady(fn func()) counts {
	o.t.Helper()
	kept := false
	for range 10 {
		got := o.during(fn)
		again := got["READ"] + got["READDIRPLUS"]
		if kept && again == 0 {
			return got
		}
		kept = again == 0
	}
	o.t.Fatal("the kernel keeps dropping pages")
	return nil
}

// settled is during, once more if need be: on a busy machine somebody may have dropped the kernel's caches meanwhile.
func (o *overlay) settled(fn func()) counts {
	o.t.Helper()
	best := o.during(fn)
	for range 2 {
		if best.total() == 0 {
			break
		}
		if again := o.during(fn); again.total() < best.total() {
			best = again
		}
	}
	return best
}

// requestLines reads the lines of the log that tell request counts: JSON with the message "requests" and one number
// an operation, in upper case.
func requestLines(t *testing.T, log string) []counts {
	t.Helper()
	f, err := os.Open(log)
	if os.IsNotExist(err) {
		return nil
	}
	check(t, err)
	defer f.Close()
	var lines []counts
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var fields map[string]any
		if json.Unmarshal(in.Bytes(), &fields) != nil {
			continue // not yet whole
		}
		if fields["msg"] != "requests" && fields["message"] != "requests" {
			continue
		}
		c := counts{}
		for k, v := range fields {
			if n, ok := v.(float64); ok && k == strings.ToUpper(k) {
				c[k] = int64(n)
			}
		}
		lines = append(lines, c)
	}
	return lines
}

// needDaemon leaves out what only our program can answer when the kernel's overlayfs stands in for it.
func needDaemon(t *testing.T) {
	t.Helper()
	if oracle {
		t.Skip("the kernel's overlayfs has no daemon")
	}
}

// wantCounts compares request counts; an operation of atMost may be missing.
func wantCounts(t *testing.T, what string, got, want, atMost counts) {
	t.Helper()
	for op, n := range got {
		if limit, ok := atMost[op]; ok && n <= limit {
			continue
		}
		if n != want[op] {
			t.Errorf("%s: %s, want %s and at most %s", what, got, want, atMost)
			return
		}
	}
	for op, n := range want {
		if got[op] != n {
			t.Errorf("%s: %s, want %s and at most %s", what, got, want, atMost)
			return
		}
	}
}
