package host

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// MemoryLimit returns the least memory limit of this process's cgroup and of those above it, as far
// as this process sees them, in bytes; 0: there is none, or it is not known.
func MemoryLimit() int64 {
	cgroups, err := ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	table, err := MountTable()
	if err != nil {
		return 0
	}
	return memoryLimit(cgroups, table, func(name string) (string, bool) {
		text, err := ReadFile(name)
		return text, err == nil
	})
}

// memoryLimit is MemoryLimit. cgroups is the text of /proc/self/cgroup.
func memoryLimit(cgroups string, table []MountEntry, read func(name string) (text string, ok bool)) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 {
			continue
		}
		fstype, file := "cgroup", "memory.limit_in_bytes"
		if fields[1] == "" {
			fstype, file = "cgroup2", "memory.max"
		} else if !slices.Contains(strings.Split(fields[1], ","), "memory") {
			continue
		}
		for _, m := range table {
			if _, has := m.Option("memory"); m.Type != fstype || fstype == "cgroup" && !has {
				continue
			}
			below, found := strings.CutPrefix(fields[2], strings.TrimSuffix(m.Root, "/"))
			if !found {
				below = "" // the mount shows no more than a part of the hierarchy
			}
			for dir := path.Clean("/" + below); ; dir = path.Dir(dir) {
				text, _ := read(path.Join(m.Point, dir, file))
				// "max" is no limit, nor is the number that version 1 has for it.
				if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n > 0 {
					least = min(least, n)
				}
				if dir == "/" {
					break
				}
			}
		}
	}
	if least >= math.MaxInt64/2 {
		return 0
	}
	return least
}
