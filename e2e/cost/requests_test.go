package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// thousandFiles is a lower of 1,000 small files in 20 directories.
func thousandFiles() string {
	var b strings.Builder
	for d := range 20 {
		for f := range 50 {
			fmt.Fprintf(&b, "file d%02d/f%02d \"content %d.%d\"\n", d, f, d, f)
		}
	}
	return b.String()
}

// visit lists, stats and reads everything: find, stat of every entry and cat in one.
func visit(t *testing.T, root string) (files int) {
	t.Helper()
	check(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
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

// Who lists and does not look is told names, who looks is told all: neither asks for single entries.
func TestRequestsFirstVisit(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		const dirs = 21
		setUp := counts{"STATFS": 1, "OPENDIR": 1, "GETATTR": 3} // what a mount is asked once
		e.writeThrough()
		o := e.mounted(t, thousandFiles())
		got := o.during(func() { sh(t, o.mnt, "find . -type f | wc -l") })
		wantCounts(t, "find", got, counts{"READDIRPLUS": 2 * dirs}, setUp)
		e = newEnv(t, e.mode)
		e.writeThrough()
		o = e.mounted(t, thousandFiles())
		got = o.during(func() { sh(t, o.mnt, "find . -printf '%s\\n' | wc -l") })
		setUp["LOOKUP"] = 4 // the samples that tell one from the other
		wantCounts(t, "find that looks", got, counts{"READDIRPLUS": 2 * dirs}, setUp)
	})
}

func TestRequestsRepeatedWalk(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		e.needCached(t)
		e.writeThrough()
		o := e.mounted(t, thousandFiles())
		equal(t, "files", visit(t, o.mnt), 1000)
		second := o.during(func() { visit(t, o.mnt) })
		// The first read makes the kernel doubt the atime: one GETATTR a file, once.
		wantCounts(t, "second walk", second, nil, counts{"GETATTR": 1021, "READ": 50}) // READ: see steady
		further := o.steady(func() { equal(t, "files", visit(t, o.mnt), 1000) })
		wantCounts(t, "further walk", further, nil, nil)
		tools := o.steady(func() { sh(t, o.mnt, "find . -type f | wc -l; cat d*/f* >/dev/null; tar c . | wc -c") })
		wantCounts(t, "find, cat and tar", tools, nil, counts{"STATFS": 1}) // find wants to know the file system
	})
}

func TestRequestsRepeatedWalkOfUpper(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.needCached(t)
		e.writeThrough()
		o := e.overlay(t, "dir x")
		build(t, e, o.upper, thousandFiles())
		o.mount()
		visit(t, o.mnt)
		visit(t, o.mnt)
		wantCounts(t, "further walk", o.steady(func() { visit(t, o.mnt) }), nil, nil)
	})
}

func TestRequestsLsLongRecursive(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, thousandFiles())
		list := func() { sh(t, o.mnt, "ls -lR . >/dev/null") }
		list()
		list()
		// coreutils asks security.selinux of each entry, which the kernel never caches for FUSE.
		// Directories are asked once as an entry and once as the place of a listing, and have a second ACL.
		const limit = 1000 + 3*21
		wantCounts(t, "ls -lR", o.steady(list), nil, counts{"GETXATTR": limit})
	})
}

// Linux itself adds two to what the program needs: a creation makes it doubt the attributes of the directory, and the
// first write to an inode asks for its file capabilities (FUSE_HANDLE_KILLPRIV_V2 spares only the further ones).
var byKernel = counts{"GETATTR": 1, "GETXATTR": 1}

func TestRequestsCreate(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for opt, maker := range map[string]string{"writeback=0": "CREATE", "writeback=1": "MKNOD"} {
			t.Run(opt, func(t *testing.T) {
				o := newEnv(t, e.mode).overlay(t, "file d/old \"x\"\nfile e/old \"x\"")
				o.opts = []string{opt}
				o.mount()
				write(t, o.path("d/first"), "learns what the kernel need not ask")
				wantText(t, o.path("d/old"), "x") // and this, by its open
				got := o.during(func() { write(t, o.path("d/second"), "text") })
				atMost := counts{"SETATTR": 1}
				maps.Copy(atMost, byKernel)
				wantCounts(t, "create and write", got, counts{"LOOKUP": 1, maker: 1, "WRITE": 1}, atMost)
				got = o.during(func() { write(t, o.path("d/second"), "other") })
				// Truncate and write; no lookup, no open, no flush. The first write went past the page cache and left the question
				// for capabilities to this one.
				atMost["SETATTR"], atMost["GETXATTR"] = 2, 2
				wantCounts(t, "overwrite", got, counts{"WRITE": 1}, atMost)
				wantText(t, o.path("d/second"), "other")
			})
		}
	})
}

func TestRequestsAppends(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"abc\"")
		o.opts = []string{"writeback=1"}
		o.mount()
		f := open(t, o.path("f"), os.O_WRONLY|os.O_APPEND)
		line := strings.Repeat("x", 99) + "\n"
		got := o.during(func() {
			for range 10_000 {
				_, err := f.WriteString(line)
				check(t, err)
			}
			check(t, f.Close())
		})
		if got["WRITE"] > 40 || got.total() > 60 {
			t.Errorf("10,000 appends of 100 bytes: %s, want a handful", got)
		}
		wantText(t, o.path("f"), "abc"+strings.Repeat(line, 10_000))
	})
}

func TestRequestsMissingName(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir d")
		lstat(t, o.path("d"))
		got := o.during(func() {
			for range 10 {
				wantAbsent(t, o.path("d/missing"))
			}
		})
		wantCounts(t, "missing name, ten times", got, counts{"LOOKUP": 1}, counts{})
		write(t, o.path("d/missing"), "now here")
		wantText(t, o.path("d/missing"), "now here")
	})
}

func TestRequestsReadlinkAndACL(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		e.needCached(t)
		e.writeThrough()
		o := e.mounted(t, "file f \"abc\"\nsymlink s f\ndir d 0750")
		look := func() {
			target, err := os.Readlink(o.path("s"))
			check(t, err)
			equal(t, "target", target, "f")
			_, err = os.ReadDir(o.path("d"))
			check(t, err)
			wantText(t, o.path("s"), "abc")
		}
		look()
		look()
		wantCounts(t, "readlink, permission checks", o.steady(look), nil, nil)
	})
}

// A request may not cost more because there are more layers: the counts are those of one layer.
func TestRequestsDoNotGrowWithLayers(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.needCached(t)
		e.writeThrough()
		tables := []string{thousandFiles()}
		for i := range 127 {
			tables = append(tables, fmt.Sprintf("file d00/only%d \"x\"", i))
		}
		o := e.mounted(t, tables...)
		first := o.during(func() { equal(t, "files", visit(t, o.mnt), 1127) })
		if first["LOOKUP"] > 1150 || first["READ"] > 1150 || first.total() > 2600 {
			t.Errorf("first walk over 128 layers: %s", first)
		}
		visit(t, o.mnt)
		wantCounts(t, "further walk", o.steady(func() { visit(t, o.mnt) }), nil, nil)
	})
}
