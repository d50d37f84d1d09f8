package mounts

import (
	"path/filepath"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Daemon is what is known of the process that serves a mount.
type Daemon struct {
	// PID is its number here. 0: not known.
	PID int
	// Age is how long ago it has begun. 0: not known.
	Age time.Duration
	// Layers are those that it was called with, as its user has typed them: a relative path begins at
	// a directory that is not known. OptionLists are the arguments of each -o. Known is false if this
	// process may not read them.
	Layers      mountargs.Layers
	OptionLists []string
	Known       bool

	// certain: the kernel itself shows that this process serves the mount.
	certain bool
	// inodes are the upper and the work directory that it has locked, as /proc/locks names them.
	inodes []string
}

// sources are what daemonOf reads, once for all mounts of a List.
type sources struct {
	locks     []host.FileLock
	processes []int
}

// newSources reads the sources. A missing one leaves daemons unknown.
func newSources() *sources {
	s := &sources{}
	s.locks, _ = host.FileLocks()
	s.processes, _ = host.Processes()
	return s
}

// daemonOf finds the process that serves a mount. It is the only place that knows how.
func (s *sources) daemonOf(m host.MountEntry) (d Daemon) {
	d.PID, d.inodes = s.holderOf(m)
	d.certain = d.PID != 0
	if d.PID == 0 {
		d.PID, d.certain = s.serverOf(m)
	}
	if d.PID == 0 {
		return d
	}
	d.Age, _ = host.ProcessAge(d.PID)
	d.OptionLists, d.Known = optionsOf(d.PID)
	d.Layers = mountargs.ParseLayers(d.OptionLists)
	return d
}

// holderOf finds the process of a mount by the locks on its upper and work directory. inodes are
// these two. 0: the mount has no upper, or the process is in another pid namespace.
func (s *sources) holderOf(m host.MountEntry) (pid int, inodes []string) {
	owners := map[string]int{}
	for _, l := range s.locks {
		if l.Kind == "FLOCK" {
			owners[l.Inode] = l.PID
		}
	}
	for inode, h := range s.published(m) {
		if h.KnownPID() == 0 || h.KnownPID() != owners[inode] || !runsAs(h.PID, m) {
			continue
		}
		if pid != 0 && pid != h.PID { // two processes of the mount's user claim it
			return 0, nil
		}
		pid, inodes = h.PID, append(inodes, inode)
	}
	return pid, inodes
}

// published returns what processes publish as the holder of a mount, by the directory beside whose
// lock they do. It is not verified.
func (s *sources) published(m host.MountEntry) map[string]sys.Holder {
	positions := map[string][]int64{}
	for _, l := range s.locks {
		if l.Kind == "OFDLCK" {
			positions[l.Inode] = append(positions[l.Inode], l.Start)
		}
	}
	holders := map[string]sys.Holder{}
	for inode, list := range positions {
		if h, ok := sys.ParseHolder(list); ok && h.Dev == m.Dev {
			holders[inode] = h
		}
	}
	return holders
}

// runsAs reports whether a process runs as the user of a mount.
func runsAs(pid int, m host.MountEntry) bool {
	user, err := host.UserOf(uint32(pid))
	return err == nil && user == userOf(m)
}

// serverOf finds the process of a mount by its FUSE connection. Where the kernel does not show
// that, it is the only process whose command line names the mount point, which is not certain. 0:
// there is none.
func (s *sources) serverOf(m host.MountEntry) (pid int, certain bool) {
	var claiming []int
	for _, pid := range s.processes {
		if !runsAs(pid, m) || host.IsSupervisor(pid) {
			continue
		}
		argv, err := host.CommandLine(pid)
		if err != nil || "fuse."+mountargs.CalledBy(argv) != m.Type {
			continue
		}
		serves, known := host.ServesDevice(pid, m.Dev)
		if serves {
			return pid, true
		}
		if !known && namesPoint(argv, m.Point) {
			claiming = append(claiming, pid)
		}
	}
	if len(claiming) != 1 {
		return 0, false
	}
	return claiming[0], false
}

// namesPoint reports whether a command line may be that of the mount at a point. It compares texts
// alone. A relative path does not count: it may be that of another mount.
func namesPoint(argv []string, point string) bool {
	a, err := mountargs.Split(argv)
	if err != nil || len(a.Positionals) == 0 || commands.InSecondProgram(mountargs.Command(argv)) {
		return false
	}
	return filepath.Clean(a.Positionals[len(a.Positionals)-1]) == point
}

// optionsOf returns the arguments of each -o of the command line of a process.
func optionsOf(pid int) (lists []string, known bool) {
	argv, err := host.CommandLine(pid)
	if err != nil {
		return nil, false
	}
	a, err := mountargs.Split(argv)
	if err != nil {
		return nil, false
	}
	return a.OptionLists, true
}
