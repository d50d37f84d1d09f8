package cost

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A listing without lstat gets names, a listing with lstat gets attributes too. Neither needs a
// request for each entry.
func TestRequestsFirstVisit(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		// A directory that fits into one request needs a second one, which finds the end.
		requests := int64(2 * 21)
		// The requests of 6.18 are as large as the buffer of the caller. Those of 5.10, 6.1, 6.12 and 7.2
		// have one page, which takes 25 of these files.
		if !harness.KernelAtLeast(t, 6, 16) || harness.KernelAtLeast(t, 7, 0) {
			requests = 4*20 + 2
		}
		setUp := harness.Counts{"STATFS": 1, "OPENDIR": 1, "GETATTR": 3} // the requests that a mount gets once
		e.WriteThrough()
		o := e.Mounted(t, harness.ThousandFiles())
		got := o.During(func() { harness.Shell(t, o.Point, "find . -type f | wc -l") })
		harness.WantCounts(t, "find", got, harness.Counts{"READDIRPLUS": requests}, setUp)
		e = harness.NewEnv(t, e.Mode)
		e.WriteThrough()
		o = e.Mounted(t, harness.ThousandFiles())
		got = o.During(func() { harness.Shell(t, o.Point, "find . -printf '%s\\n' | wc -l") })
		setUp["LOOKUP"] = 4 // the samples that distinguish the two
		harness.WantCounts(t, "find with lstat", got, harness.Counts{"READDIRPLUS": requests}, setUp)
	})
}

func TestRequestsRepeatedWalk(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		e.WriteThrough()
		o := e.Mounted(t, harness.ThousandFiles())
		harness.Equal(t, "files", harness.Visit(t, o.Point), 1000)
		second := o.During(func() { harness.Visit(t, o.Point) })
		// The first read of a file invalidates its atime: one GETATTR, once.
		harness.WantCounts(t, "second walk", second, nil, harness.Counts{"GETATTR": 1021, "READ": 50}) // READ: see steady
		further := o.Steady(func() { harness.Equal(t, "files", harness.Visit(t, o.Point), 1000) })
		harness.WantCounts(t, "further walk", further, nil, nil)
		tools := o.Steady(func() {
			harness.Shell(t, o.Point,
				"find . -type f | wc -l; cat d*/f* >/dev/null; tar c . | wc -c")
		})
		// Find wants to know the file system.
		harness.WantCounts(t, "find, cat and tar", tools, nil, harness.Counts{"STATFS": 1})
	})
}

func TestRequestsRepeatedWalkOfUpper(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		e.WriteThrough()
		o := e.Overlay(t, "dir x")
		harness.Build(t, e, o.Upper, harness.ThousandFiles())
		o.Mount()
		harness.Visit(t, o.Point)
		harness.Visit(t, o.Point)
		harness.WantCounts(t, "further walk", o.Steady(func() { harness.Visit(t, o.Point) }), nil, nil)
	})
}

func TestRequestsLsLongRecursive(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, harness.ThousandFiles())
		list := func() { harness.Shell(t, o.Point, "ls -lR . >/dev/null") }
		list()
		list()
		// coreutils read security.selinux of each entry, which the kernel does not cache for FUSE. They
		// read it of a directory twice, as an entry and for its listing. A directory has a second ACL.
		const limit = 1000 + 3*21
		harness.WantCounts(t, "ls -lR", o.Steady(list), nil, harness.Counts{"GETXATTR": limit})
	})
}

func TestRequestsCreate(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for opt, maker := range map[string]string{"writeback=0": "CREATE", "writeback=1": "MKNOD"} {
			t.Run(opt, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "file d/old \"x\"\nfile e/old \"x\"")
				o.Opts = []string{opt}
				o.Mount()
				harness.Write(t, o.Path("d/first"), "learns what the kernel need not ask")
				harness.WantText(t, o.Path("d/old"), "x") // and this, by its open
				got := o.During(func() { harness.Write(t, o.Path("d/second"), "text") })
				atMost := harness.Counts{"SETATTR": 1}
				maps.Copy(atMost, harness.ByKernel)
				if !harness.DirectIO(t) { // there is no direct I/O, so OPEN and CREATE are not served
					maker = "MKNOD"
				}
				harness.WantCounts(t, "create and write", got, harness.Counts{"LOOKUP": 1, maker: 1, "WRITE": 1}, atMost)
				got = o.During(func() { harness.Write(t, o.Path("d/second"), "other") })
				// SETATTR and WRITE, and no LOOKUP, OPEN and FLUSH. The first write went past the page cache,
				// so this one reads security.capability.
				atMost["SETATTR"], atMost["GETXATTR"] = 2, 2
				if !harness.KernelHas(t, harness.KillprivV2) { // the kernel requests the mode before it writes
					atMost["GETATTR"] = 2
				}
				harness.WantCounts(t, "overwrite", got, harness.Counts{"WRITE": 1}, atMost)
				harness.WantText(t, o.Path("d/second"), "other")
			})
		}
	})
}

func TestRequestsAppends(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"abc\"")
		o.Opts = []string{"writeback=1"}
		o.Mount()
		f := harness.Open(t, o.Path("f"), os.O_WRONLY|os.O_APPEND)
		line := strings.Repeat("x", 99) + "\n"
		got := o.During(func() {
			for range 10_000 {
				_, err := f.WriteString(line)
				harness.Check(t, err)
			}
			harness.Check(t, f.Close())
		})
		if !harness.KernelHas(t, harness.KillprivV2) { // the kernel reads security.capability before each write
			delete(got, "GETXATTR")
		}
		if got["WRITE"] > 40 || got.Total() > 60 {
			t.Errorf("10,000 appends of 100 bytes: %s, want a handful", got)
		}
		harness.WantText(t, o.Path("f"), "abc"+strings.Repeat(line, 10_000))
	})
}

func TestRequestsMissingName(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir d")
		harness.Lstat(t, o.Path("d"))
		got := o.During(func() {
			for range 10 {
				harness.WantAbsent(t, o.Path("d/missing"))
			}
		})
		harness.WantCounts(t, "missing name, ten times", got, harness.Counts{"LOOKUP": 1}, harness.Counts{})
		harness.Write(t, o.Path("d/missing"), "now here")
		harness.WantText(t, o.Path("d/missing"), "now here")
	})
}

func TestRequestsReadlinkAndACL(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		e.WriteThrough()
		o := e.Mounted(t, "file f \"abc\"\nsymlink s f\ndir d 0750")
		look := func() {
			target, err := os.Readlink(o.Path("s"))
			harness.Check(t, err)
			harness.Equal(t, "target", target, "f")
			_, err = os.ReadDir(o.Path("d"))
			harness.Check(t, err)
			harness.WantText(t, o.Path("s"), "abc")
		}
		look()
		look()
		harness.WantCounts(t, "readlink, permission checks", o.Steady(look), nil, nil)
	})
}

// More layers do not cost more requests: the counts are those of one layer.
func TestRequestsDoNotGrowWithLayers(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		e.WriteThrough()
		tables := []string{harness.ThousandFiles()}
		for i := range 127 {
			tables = append(tables, fmt.Sprintf("file d00/only%d \"x\"", i))
		}
		o := e.Mounted(t, tables...)
		first := o.During(func() { harness.Equal(t, "files", harness.Visit(t, o.Point), 1127) })
		if first["LOOKUP"] > 1150 || first["READ"] > 1150 || first.Total() > 2600 {
			t.Errorf("first walk over 128 layers: %s", first)
		}
		harness.Visit(t, o.Point)
		harness.WantCounts(t, "further walk", o.Steady(func() { harness.Visit(t, o.Point) }), nil, nil)
	})
}
