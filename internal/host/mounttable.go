package host

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountEntry is a line of a mount table.
type MountEntry struct {
	ID    int
	Dev   uint64 // of the file system
	Root  string // the directory of the file system that is mounted
	Point string
	Type  string
	// Options are those of the file system, not of this mount of it, as the table has them:
	// separated by commas, escaped ([UnescapeOctal]).
	Options string
	// ReadOnly: this mount of it can only be read. The file system may be read-only as well.
	ReadOnly bool
}

// Option returns the value of an option of the file system, unescaped; "" for an option without a
// value.
func (m MountEntry) Option(name string) (value string, ok bool) {
	for option := range strings.SplitSeq(m.Options, ",") {
		if key, value, _ := strings.Cut(option, "="); key == name {
			return UnescapeOctal(value), true
		}
	}
	return "", false
}

// MountTable returns the mounts below the calling thread's root directory, in its mount namespace.
// Of two mounts at one place, the upper one comes later.
func MountTable() ([]MountEntry, error) {
	table, err := ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return ParseMountTable(table), nil
}

// ParseMountTable parses a mountinfo file (proc_pid_mountinfo(5)). It leaves out lines that are
// malformed.
func ParseMountTable(table string) (entries []MountEntry) {
	for line := range strings.Lines(table) {
		mount, super, found := strings.Cut(line, " - ")
		fields, rest := strings.Fields(mount), strings.Fields(super)
		if !found || len(fields) < 6 || len(rest) < 1 {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		major, minor, _ := strings.Cut(fields[2], ":")
		a, errA := strconv.ParseUint(major, 10, 32)
		b, errB := strconv.ParseUint(minor, 10, 32)
		if err != nil || errA != nil || errB != nil {
			continue
		}
		m := MountEntry{
			ID: id, Dev: unix.Mkdev(uint32(a), uint32(b)), Root: UnescapeOctal(fields[3]), Point: UnescapeOctal(fields[4]),
			Type: rest[0],
		}
		if len(rest) > 2 {
			m.Options = rest[2]
		}
		m.ReadOnly = fields[5] == "ro" || strings.HasPrefix(fields[5], "ro,")
		entries = append(entries, m)
	}
	return entries
}

// UnescapeOctal turns the \ooo by which the kernel writes blanks and commas in a mount table back
// (seq_escape).
func UnescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// RealPath returns the path of a directory without symbolic links. It sends no request to the file
// system that the directory is the root of, because that may be a dead mount.
func RealPath(path string) (string, error) {
	p, err := OpenPoint(path)
	if err != nil {
		return "", err
	}
	defer p.Close()
	return p.Path()
}
