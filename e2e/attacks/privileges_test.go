package attacks

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// netRaw is the value of security.capability for cap_net_raw+ep.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// member is a user in the group of the files, and stranger is one that is not.
const (
	member   = 1001
	stranger = 1002
	group    = 1003
)

// writing opens a file, calls f and closes it.
func writing(path string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(f(fd), unix.Close(fd))
}

// writesAtOnce is the number of rows of each run of TestWritesClearPrivileges, times the factor.
const writesAtOnce = 200

// from is a file with text to copy from.
func from(f func(fd int) error) error {
	fd, err := unix.MemfdCreate("from", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte("copied"), 0)
	return errors.Join(err, f(fd), unix.Close(fd))
}

// writes are the ways in which a process changes the data of a file.
var writes = map[string]func(path string) error{
	"write": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("new")); return err })
	},
	"write of nothing": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, nil); return err })
	},
	"append": func(path string) error {
		return writing(path, unix.O_WRONLY|unix.O_APPEND, func(fd int) error { _, err := unix.Write(fd, []byte("+")); return err })
	},
	"write of vectors": func(path string) error {
		return writing(path, unix.O_RDWR, func(fd int) error {
			_, err := unix.Pwritev(fd, [][]byte{[]byte("a"), []byte("b")}, 1)
			return err
		})
	},
	"synchronous write": func(path string) error {
		return writing(path, unix.O_WRONLY|unix.O_SYNC, func(fd int) error { _, err := unix.Write(fd, []byte("new")); return err })
	},
	"open only": func(path string) error { return writing(path, unix.O_RDWR, func(int) error { return nil }) },
	"open with trunc": func(path string) error {
		return writing(path, unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })
	},
	"truncate":      func(path string) error { return unix.Truncate(path, 2) },
	"truncate to 0": func(path string) error { return unix.Truncate(path, 0) },
	"truncate to the same size": func(path string) error {
		var st unix.Stat_t
		return errors.Join(unix.Stat(path, &st), unix.Truncate(path, st.Size))
	},
	"ftruncate up": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 10000) })
	},
	"fallocate": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
	},
	"fallocate with keep_size": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 100) })
	},
	"punch": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 2)
		})
	},
	"zero range": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 2) })
	},
	"sendfile": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error {
			return from(func(source int) error { var at int64; _, err := unix.Sendfile(fd, source, &at, 6); return err })
		})
	},
	"splice": func(path string) error {
		return writing(path, unix.O_WRONLY, func(fd int) error {
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			_, err := unix.Write(pipe[1], []byte("spliced"))
			if err == nil {
				_, err = unix.Splice(pipe[0], nil, fd, nil, 7, 0)
			}
			return errors.Join(err, unix.Close(pipe[0]), unix.Close(pipe[1]))
		})
	},
	"copy_file_range": func(path string) error {
		return writing(path, unix.O_RDWR, func(fd int) error {
			in, out := int64(0), int64(2)
			_, err := unix.CopyFileRange(fd, &in, fd, &out, 2, 0)
			return err
		})
	},
	"mapped write": func(path string) error {
		return writing(path, unix.O_RDWR, func(fd int) error {
			data, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			data[0] = 'M'
			return errors.Join(unix.Msync(data, unix.MS_SYNC), unix.Munmap(data))
		})
	},
	"chown to itself": func(path string) error { return os.Lchown(path, -1, -1) },
	"chmod to itself": func(path string) error {
		var st unix.Stat_t
		return errors.Join(unix.Stat(path, &st), unix.Chmod(path, st.Mode&0o7777))
	},
	"chown to the group": func(path string) error { return os.Lchown(path, -1, group) },
	"times":              func(path string) error { return harness.SetTimes(path, harness.OldTime) },
	"xattr":              func(path string) error { return unix.Setxattr(path, "user.new", []byte("value"), 0) },
	"rename":             func(path string) error { return errors.Join(os.Rename(path, path+"~"), os.Rename(path+"~", path)) },
}

// privileges are the rights that a file can give to a process that executes it.
var privileges = map[string]struct {
	mode         uint32
	capabilities bool
}{
	"suid":                         {0o4777, false},
	"sgid":                         {0o2777, false},
	"sgid, not executed by group":  {0o2767, false},
	"sgid, executed by group only": {0o2676, false},
	"suid and sgid":                {0o6777, false},
	"suid, not executed":           {0o4666, false},
	"capabilities":                 {0o777, true},
	"capabilities and suid":        {0o4777, true},
}

// writers are the users that write: the owner of the files, a member of their group, another user,
// and root.
var writers = map[string]struct {
	uid, gid int
	groups   []uint32
}{
	"owner":    {attacker, attacker, nil},
	"member":   {member, member, []uint32{group}},
	"stranger": {stranger, stranger, nil},
	"root":     {0, 0, nil},
}

// privilegedFile is a file, and the write that is made to it.
type privilegedFile struct{ write, privilege, writer, layer string }

func (p privilegedFile) name() string {
	return strings.NewReplacer(" ", "_", ",", "").Replace(strings.Join([]string{p.layer, p.writer, p.privilege, p.write}, "-"))
}

// privilegedFiles are all combinations, in the same order each time.
func privilegedFiles() (all []privilegedFile) {
	for _, write := range slices.Sorted(maps.Keys(writes)) {
		for _, privilege := range slices.Sorted(maps.Keys(privileges)) {
			for _, writer := range slices.Sorted(maps.Keys(writers)) {
				for _, layer := range []string{"lower", "upper"} {
					all = append(all, privilegedFile{write, privilege, writer, layer})
				}
			}
		}
	}
	return all
}

// make makes the file in a directory.
func (p privilegedFile) make(dir string) error {
	path := filepath.Join(dir, p.name())
	give := privileges[p.privilege]
	err := errors.Join(os.WriteFile(path, []byte("text of the file"), 0o600), os.Lchown(path, attacker, group),
		unix.Chmod(path, give.mode))
	if give.capabilities {
		err = errors.Join(err, unix.Setxattr(path, "security.capability", []byte(netRaw), 0))
	}
	return err
}

// outcomes makes all writes in a mount, and returns what each has left: the error, owner, mode and
// capabilities of the file.
func outcomes(t *testing.T, o *harness.Overlay, all []privilegedFile) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, p := range all {
		path := o.Path(p.name())
		run := func() {
			if err := writes[p.write](path); err != nil {
				got[p.name()] = harness.ErrnoName(err)
			}
		}
		if w := writers[p.writer]; w.uid != 0 {
			harness.AsGroups(t, w.uid, w.gid, w.groups, run)
		} else {
			run()
		}
	}
	for _, p := range all {
		shown := func(path string) string {
			return fmt.Sprintf("%s %t", harness.Owner(t, path), harness.XattrOf(path, "security.capability") != "ENODATA")
		}
		merged := shown(o.Path(p.name()))
		got[p.name()] += " " + merged
		if stored := filepath.Join(o.Upper, p.name()); harness.KindOf(stored) != 0 {
			harness.Equal(t, p.name()+" in the upper", shown(stored), merged)
		}
	}
	return got
}

// Each way to write a file takes from it the same suid and sgid bits and capabilities as with the
// kernel's overlayfs, for each user, on files of a lower and of the upper.
func TestWritesClearPrivileges(t *testing.T) {
	harness.NeedDaemon(t)
	seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano()))
	t.Log("seed", seed)
	all := privilegedFiles()
	rand.New(rand.NewPCG(seed, 3)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:min(len(all), writesAtOnce*factor())]
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		var results []map[string]string
		for _, side := range []harness.Implementation{harness.Ours, harness.Kernel} {
			e := newEnvLike(t, e)
			o := e.Overlay(t, "")
			o.Kernel = side == harness.Kernel
			harness.Check(t, os.Chmod(o.Lowers[0], 0o777))
			harness.Check(t, os.Chmod(o.Upper, 0o777))
			for _, p := range all {
				if p.layer == "lower" {
					harness.Check(t, p.make(o.Lowers[0]))
				}
			}
			o.Mount()
			for _, p := range all {
				if p.layer == "upper" {
					harness.Check(t, p.make(o.Point))
				}
			}
			results = append(results, outcomes(t, o, all))
		}
		differ := 0
		for _, p := range all {
			ours, kernels := results[0][p.name()], results[1][p.name()]
			if ours == kernels {
				continue
			}
			differ++
			if !p.mayDiffer(e) {
				t.Errorf("%s:\n  here   %s\n  kernel %s", p.name(), ours, kernels)
			}
		}
		t.Logf("%d writes, %d with another result than in the kernel's overlayfs", len(all), differ)
	})
}

// mayDiffer reports whether D82 of docs/SEMANTICS.md permits another result than the kernel's.
func (p privilegedFile) mayDiffer(e *harness.Env) bool {
	switch p.write {
	case "chown to itself":
		return true
	case "mapped write":
		return strings.HasPrefix(p.privilege, "capabilities") || e.Mode == harness.ModeUserns
	}
	return e.Mode == harness.ModeUserns && p.writer == "root" && p.privilege == "sgid, not executed by group"
}
