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

// Visit lists a tree, calls lstat for each object and reads each file, as find, stat and cat do. It
// returns the number of files.
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

// ByKernel are two requests that Linux adds to those that the program needs. A creation invalidates
// the attributes of the directory, and the first write to an inode reads security.capability
// (FUSE_HANDLE_KILLPRIV_V2 avoids the later ones only).
var ByKernel = Counts{"GETATTR": 1, "GETXATTR": 1}

// Counts are the numbers of requests that the kernel has sent, by opcode.
type Counts map[string]int64

// Minus are the requests since before.
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

// Total is the number of all requests.
func (c Counts) Total() int64 {
	var n int64
	for _, m := range c {
		n += m
	}
	return n
}

// Requests are the requests since the mount. The daemon logs them after SIGUSR1.
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
		o.T.Fatalf("no request counts after SIGUSR1 in %s:\n%s", o.Log, text)
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

// Steady counts the requests that fn causes while the kernel drops no pages. If memory is short,
// the kernel drops pages: the next run reads them again (READ, READDIRPLUS), and the run after that
// requests the atime of their files (GETATTR).
func (o *Overlay) Steady(fn func()) Counts {
	o.T.Helper()
	cached := false
	for range 10 {
		got := o.During(fn)
		again := got["READ"] + got["READDIRPLUS"]
		if cached && again == 0 {
			return got
		}
		cached = again == 0
	}
	o.T.Fatal("the kernel drops pages in each run")
	return nil
}

// DuringLeast is the least of up to three counts of During: another process may drop the caches of
// the kernel during one.
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

// requestLines are the request counts in a log: JSON lines with the message "requests" and one
// number for each opcode, in upper case.
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

// WantCounts fails the test unless got is want. The opcodes of atMost may come less often, or not
// at all.
func WantCounts(t *testing.T, what string, got, want, atMost Counts) {
	t.Helper()
	ok := true
	for op, n := range got {
		limit, limited := atMost[op]
		ok = ok && (n == want[op] || limited && n <= limit)
	}
	for op, n := range want {
		ok = ok && got[op] == n
	}
	if !ok {
		t.Errorf("%s: %s, want %s and at most %s", what, got, want, atMost)
	}
}
