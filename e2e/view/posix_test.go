package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// wrongCases fail on every file system. go-fuse's own run of the suite leaves them out too.
var wrongCases = map[string]string{
	"FcntlFlockLocksFile": "expects flock(2) to conflict with fcntl(2) locks; see TestLocks for both",
}

func posixCases() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(posixtest.All)),
		func(name string) bool { return wrongCases[name] != "" })
}

// TestPosix runs all cases of go-fuse's posixtest, each in a fresh directory of the upper and in
// one of the lower.
func TestPosix(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var lower strings.Builder
		for name := range posixtest.All {
			fmt.Fprintf(&lower, "dir lower/%s 0777\n", name)
		}
		o := e.Mounted(t, lower.String())
		for _, name := range posixCases() {
			t.Run("upper/"+name, func(t *testing.T) {
				harness.Mkdir(t, o.Path("upper/"+name))
				posixtest.All[name](t, o.Path("upper/"+name))
			})
			t.Run("lower/"+name, func(t *testing.T) { posixtest.All[name](t, o.Path("lower/"+name)) })
		}
	})
}

// onLowerFiles are the cases that open their file with O_CREAT and O_TRUNC, or write all of it.
// They must also pass if the file exists in the lower.
var onLowerFiles = map[string]string{
	"FileBasic": "file", "FileLarge": "file", "TruncateFile": "file", "DirectIO": "file.txt", "FdLeak": "file",
	"Fallocate": "file", "FallocateKeepSize": "file", "LseekHoleSeeksToEOF": "file.bin", "LseekEnxioCheck": "file.bin",
	"XAttr": "file", "XAttrLarge": "file", "NlinkZero": "src", "FstatDeleted": "1",
	"ParallelFileOpen": "file", "FcntlFlockSetLk": "file1",
}

func TestPosixOnLowerFiles(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var lower strings.Builder
		for name, file := range onLowerFiles {
			fmt.Fprintf(&lower, "file %s/%s 0755 %q\n", name, file, strings.Repeat("what the lower holds ", 1000))
		}
		o := e.Mounted(t, lower.String())
		for _, name := range slices.Sorted(maps.Keys(onLowerFiles)) {
			t.Run(name, func(t *testing.T) { posixtest.All[name](t, o.Path(name)) })
		}
		for name, file := range onLowerFiles {
			harness.WantText(t, o.Lowers[0]+"/"+name+"/"+file, strings.Repeat("what the lower holds ", 1000))
		}
	})
}
