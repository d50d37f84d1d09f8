package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// FileSystem is what the host tells of a mounted file system.
type FileSystem struct {
	// Type is its name in /proc/filesystems.
	Type string
	// Options are those of the file system itself, not of one mount of it: for ext4 all that are in force, as
	// /proc/fs/ext4/DEVICE/options has them, for others those that /proc/self/mountinfo shows, which leaves out defaults.
	Options []string
	// OwnJournal reports a jbd2 journal on the file system's own device; an external one does not count.
	OwnJournal bool
}

// FileSystem asks the host about the file system that holds the directory: /proc and /sys, no path of a layer. ENOENT
// where the host does not show it: not mounted in this mount namespace, or one without a device number of its own.
func (d *Dir) FileSystem() (FileSystem, error) {
	var st Stat
	if err := d.Ref().Stat(&st); err != nil {
		return FileSystem{}, err
	}
	table, err := readHost("/proc/self/mountinfo")
	if err != nil {
		return FileSystem{}, err
	}
	fs, ok := findMount(table, st.Dev)
	if !ok {
		return FileSystem{}, unix.ENOENT
	}
	if fs.Type != "ext4" && fs.Type != "ext3" {
		return fs, nil
	}
	node, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return FileSystem{}, unix.ENOENT
	}
	device := filepath.Base(node)
	options, err := readHost("/proc/fs/ext4/" + device + "/options")
	if err != nil {
		return FileSystem{}, err
	}
	fs.Options = strings.Fields(options)
	fs.OwnJournal = ownJournal(device)
	return fs, nil
}

// readHost reads a file of the host, not of a layer.
func readHost(path string) (string, error) {
	if err := fault("open", path); err != nil {
		return "", err
	}
	return host.ReadFile(path)
}

// findMount finds any mount of a device in the text of a mountinfo file (proc_pid_mountinfo(5)).
func findMount(table string, dev uint64) (FileSystem, bool) {
	for _, m := range host.ParseMountTable(table) {
		if m.Dev == dev && m.Options != "" {
			return FileSystem{Type: m.Type, Options: strings.Split(m.Options, ",")}, true
		}
	}
	return FileSystem{}, false
}

// ownJournal looks for the entry DEVICE-INODE that jbd2 makes for a journal inside of a file system; an external journal's
// is the name of its own device (jbd2_journal_init_inode, jbd2_journal_init_dev in fs/jbd2/journal.c).
func ownJournal(device string) bool {
	entries, err := os.ReadDir("/proc/fs/jbd2")
	if err != nil {
		return false
	}
	for _, e := range entries {
		inode, ok := strings.CutPrefix(e.Name(), device+"-")
		if ok && inode != "" && strings.Trim(inode, "0123456789") == "" {
			return true
		}
	}
	return false
}
