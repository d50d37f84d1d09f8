package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// WorkRest lists what lies in a work directory besides empty directories and empty files (locks).
func WorkRest(work string) []string {
	var rest []string
	_ = filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
			rest = append(rest, strings.TrimPrefix(path, work))
		}
		return nil
	})
	return rest
}

// IndexKinds describes the index of an overlay (index=on) by the kinds of its objects. Their names
// are handles, which differ between any two layers. Which names of an object are links of it may
// differ too: the kernel does not send a FUSE server the name by which a process writes to a file.
func IndexKinds(o *Overlay) (lines map[string]string, fault string) {
	entries, err := os.ReadDir(filepath.Join(o.Work, "index"))
	if err != nil {
		return nil, err.Error()
	}
	var kinds []string
	for _, entry := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(o.Work, "index", entry.Name()), &st); err != nil {
			return nil, err.Error()
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			continue // the whiteout of which the kernel links others
		}
		kinds = append(kinds, entry.Type().String())
	}
	slices.Sort(kinds)
	return map[string]string{"index": fmt.Sprintf("index %q", kinds)}, ""
}
