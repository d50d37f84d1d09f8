package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MountLine is one line of /proc/self/mountinfo.
type MountLine struct {
	Point   string // the mount point
	Kind    string // the type of the file system
	Options string // of the mount
	Super   string // options of the superblock
	Minor   int    // minor number of the device: for FUSE the folder below /sys/fs/fuse/connections
}

// MountTable lists the mounts of this namespace in their order.
func MountTable() []MountLine {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	var table []MountLine
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		head, tail, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		n, _ := strconv.Atoi(minor)
		table = append(table, MountLine{Point: unescapeMount(f[4]), Kind: g[0], Options: f[5], Super: g[2], Minor: n})
	}
	return table
}

// unescapeMount decodes the octal escapes of the mount tables.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// MountAt finds the topmost mount at a mount point.
func MountAt(point string) (m MountLine, ok bool) {
	for _, m := range slices.Backward(MountTable()) {
		if m.Point == point {
			return m, true
		}
	}
	return MountLine{}, false
}

// mountsBelow lists the mounts below a folder.
func mountsBelow(dir string) []MountLine {
	return slices.DeleteFunc(MountTable(), func(m MountLine) bool { return !strings.HasPrefix(m.Point, dir+"/") })
}

// whoMounts lists the processes in whose mount namespaces a FUSE connection is mounted.
func whoMounts(minor int) (pids []string) {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err == nil && strings.Contains(string(text), fmt.Sprintf(" 0:%d / ", minor)) {
			pids = append(pids, filepath.Base(filepath.Dir(table)))
		}
	}
	return pids
}

// AbortConnection makes the kernel reply to every request of a FUSE mount with an error.
func AbortConnection(minor int) {
	f, err := os.OpenFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString("1")
	_ = f.Close()
}
