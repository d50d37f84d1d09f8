package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MountLine is one line of /proc/self/mountinfo.
type MountLine struct {
	Point, source, Kind string
	Options, Super      string
	Minor               int // of the device: for FUSE the number under /sys/fs/fuse/connections
}

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
		table = append(table, MountLine{unescapeMount(f[4]), unescapeMount(g[1]), g[0], f[5], g[2], n})
	}
	return table
}

// unescapeMount undoes the octal escapes of the mount tables.
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

// MountAt answers with the topmost mount on a folder.
func MountAt(point string) (MountLine, bool) {
	table := MountTable()
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].Point == point {
			return table[i], true
		}
	}
	return MountLine{}, false
}

func mountedType(point string) (string, bool) {
	m, ok := MountAt(point)
	return m.Kind, ok
}

// whoMounts lists the processes in whose mount namespaces a device is mounted.
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
