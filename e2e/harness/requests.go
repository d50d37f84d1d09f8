package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ThousandFiles is a lower of 1,000 small files in 20 directories.
func ThousandFiles() string {
	var b strings.Builder
	for d := range 20 {
		for f := range 50 {
			fmt.Fprintf(&b, "file d%02d/f%02d \"content %d.%d\"\n", d, f, d, f)
		}
	}
	return b.String()
}

// Visit lists, stats and reads everything: find, stat of every entry and cat in one.
func Visit(t *testing.T, root string) (files int) {
	t.Helper()
	Check(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			files++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if int64(len(text)) != info.Size() {
				return fmt.Errorf("%s: read %d bytes of %d", path, len(text), info.Size())
			}
		}
		return nil
	}))
	return files
}

// Linux itself adds two to what the program needs: a creation makes it doubt the attributes of the directory, and the
// first write to an inode asks for its file capabilities (FUSE_HANDLE_KILLPRIV_V2 spares only the further ones).
var ByKernel = Counts{"GETATTR": 1, "GETXATTR": 1}

// Counts is how many requests of each kind the kernel has sent.
type Counts map[string]int64

func (c Counts) Minus(before Counts) Counts {
	d := Counts{}
	for op, n := range c {
		if n != before[op] {
			d[op] = n - before[op]
		}
	}
	return d
}

func (c Counts) String() string {
	var parts []string
	for _, op := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", op, c[op]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (c Counts) Total() int64 {
	var n int64
	for _, m := range c {
		n += m
	}
	return n
}

// Requests asks the daemon by SIGUSR1 and waits for its answer in the log.
func (o *Overlay) Requests() Counts {
	o.T.Helper()
	NeedDaemon(o.T)
	before := len(requestLines(o.T, o.Log))
	Check(o.T, syscall.Kill(o.PID, syscall.SIGUSR1))
	var lines []Counts
	if !Eventually(5*time.Second, func() bool {
		lines = requestLines(o.T, o.Log)
		return len(lines) > before
	}) {
		text, _ := os.ReadFile(o.Log)
		o.T.Fatalf("no answer to SIGUSR1 in %s:\n%s", o.Log, text)
	}
	return lines[len(lines)-1]
}

// During counts the requests that fn causes.
func (o *Overlay) During(fn func()) Counts {
	o.T.Helper()
	before := o.Requests()
	fn()
	return o.Requests().Minus(before)
}

// Steady counts the requests that fn causes when the kernel has not dropped pages: those it has taken back since the last
// run, for want of memory, it reads again (READ, READDIRPLUS), and doubts the atime of their files in the run after that
// (GETATTR).
func (o *Overlay) Steady(fn func()) Counts {
	o.T.Helper()
	kept := false
	for range 10 {
		got := o.During(fn)
		again := got["READ"] + got["READDIRPLUS"]
		if kept && again == 0 {
			return got
		}
		kept = again == 0
	}
	o.T.Fatal("the kernel keeps dropping pages")
	return nil
}

// DuringLeast is during, once more if need be: on a busy machine somebody may have dropped the kernel's caches meanwhile.
func (o *Overlay) DuringLeast(fn func()) Counts {
	o.T.Helper()
	best := o.During(fn)
	for range 2 {
		if best.Total() == 0 {
			break
		}
		if again := o.During(fn); again.Total() < best.Total() {
			best = again
		}
	}
	return best
}

// requestLines reads the lines of the log that tell request counts: JSON with the message "requests" and one number
// an operation, in upper case.
func requestLines(t *testing.T, log string) []Counts {
	t.Helper()
	f, err := os.Open(log)
	if os.IsNotExist(err) {
		return nil
	}
	Check(t, err)
	defer f.Close()
	var lines []Counts
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
		c := Counts{}
		for k, v := range fields {
			if n, ok := v.(float64); ok && k == strings.ToUpper(k) {
				c[k] = int64(n)
			}
		}
		lines = append(lines, c)
	}
	return lines
}

// NeedDaemon leaves out what only our program can answer when the kernel's overlayfs stands in for it.
func NeedDaemon(t *testing.T) {
	t.Helper()
	if Oracle {
		t.Skip("the kernel's overlayfs has no daemon")
	}
}

// WantCounts compares request counts; an operation of atMost may be missing.
func WantCounts(t *testing.T, what string, got, want, atMost Counts) {
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
