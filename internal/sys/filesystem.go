package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// FSInfo describes a mounted file system, as the kernel reports it in /proc and /sys.
type FSInfo struct {
	// Type is its name in /proc/filesystems.
	Type string
	// Options are those of the file system itself, not of one mount of it. For ext4 they are all in
	// force (/proc/fs/ext4/DEVICE/options). For others they are those in /proc/self/mountinfo,
	// which leaves out defaults.
	Options []string
	// OwnJournal reports a jbd2 journal on the file system's own device, not an external one.
	OwnJournal bool
}

// FSInfo describes the file system that holds the directory. It reads /proc and /sys, and no
// path of a layer. ENOENT: the file system is not mounted in this mount namespace, or has no device
// number of its own.
func (d *Dir) FSInfo() (FSInfo, error) {
	var st Stat
	if err := d.Ref().Stat(&st); err != nil {
		return FSInfo{}, err
	}
	table, err := readHost("/proc/self/mountinfo")
	if err != nil {
		return FSInfo{}, err
	}
	fs, ok := findMount(table, st.Dev)
	if !ok {
		return FSInfo{}, unix.ENOENT
	}
	if fs.Type != "ext4" && fs.Type != "ext3" {
		return fs, nil
	}
	node, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return FSInfo{}, unix.ENOENT
	}
	device := filepath.Base(node)
	options, err := readHost("/proc/fs/ext4/" + device + "/options")
	if err != nil {
		return FSInfo{}, err
	}
	fs.Options = strings.Fields(options)
	fs.OwnJournal = ownJournal(device)
	return fs, nil
}

// readHost reads a file in /proc or /sys, past the fault seam.
func readHost(path string) (string, error) {
	if err := fault("open", path); err != nil {
		return "", err
	}
	return host.ReadFile(path)
}

// findMount finds a mount of a device in the text of a mountinfo file.
func findMount(table string, dev uint64) (FSInfo, bool) {
	for _, m := range host.ParseMountTable(table) {
		if m.Dev == dev && m.Options != "" {
			return FSInfo{Type: m.Type, Options: strings.Split(m.Options, ",")}, true
		}
	}
	return FSInfo{}, false
}

// ownJournal looks for the entry DEVICE-INODE that jbd2 makes for a journal inside of a file system
// (jbd2_journal_init_inode). The entry of an external journal is the name of its own device
// (jbd2_journal_init_dev in fs/jbd2/journal.c).
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
