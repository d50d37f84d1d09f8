package faults

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// An upper has two resources: blocks and inodes. The tests use up one of them, try each kind of
// change, and free the resource again.

// scarceChange is one kind of change. Each has a folder of its own in the lower, and so in the
// mount.
type scarceChange struct {
	name    string
	lower   string                       // the table of the folder in the lower, which is D; TEXT is scarceLower
	prepare func(t *testing.T, d string) // runs before the resource is used up
	change  func(d string) error         // may run again after an error
	// data are files whose content may be changed in part after an error, as by write(2), and which
	// the page cache may show so. whole is their content without an error.
	data, whole string
	redirects   bool // needs redirect_dir=on
}

func (c *scarceChange) folder() string { return strings.ReplaceAll(c.name, " ", "-") }

// scarceData is what the changes of data write.
var scarceData = strings.Repeat("x", 256<<10)

// scarceLower is the content of lower files.
var scarceLower = strings.Repeat("lower", 4000)

// scarceChanges is the list of all kinds.
var scarceChanges = []scarceChange{
	{name: "copy-up of data", lower: "file D/f TEXT", change: func(d string) error { return appendMore(d + "/f") },
		data: "f", whole: scarceLower + "more"},
	{name: "copy-up of metadata", lower: "file D/f TEXT", change: func(d string) error { return os.Chmod(d+"/f", 0o600) }},
	{name: "copy-up of an owner", lower: "file D/f TEXT", change: func(d string) error { return os.Chown(d+"/f", 0, 1) }},
	{name: "copy-up by truncation", lower: "file D/f TEXT", change: func(d string) error { return os.Truncate(d+"/f", 5000) }},
	{name: "copy-up of a directory", lower: "file D/s/t/f", change: func(d string) error { return os.Chmod(d+"/s/t", 0o700) }},
	{name: "copy-up of a symlink", lower: "symlink D/l " + strings.Repeat("t", 200),
		change: func(d string) error { return os.Lchown(d+"/l", 0, 1) }},
	{name: "copy-up of an xattr", lower: "file D/f TEXT\nxattr D/f user.big " + strings.Repeat("v", 2000),
		change: func(d string) error { return os.Chmod(d+"/f", 0o600) }},
	{name: "create", lower: "dir D/", change: func(d string) error { return createFile(d + "/f") }},
	{name: "create below a lower directory", lower: "file D/s/t/f", change: func(d string) error { return createFile(d + "/s/t/g") }},
	{name: "mkdir", lower: "dir D/", change: func(d string) error { return os.Mkdir(d+"/s", 0o755) }},
	{name: "mknod", lower: "dir D/", change: func(d string) error { return unix.Mkfifo(d+"/p", 0o644) }},
	{name: "symlink", lower: "dir D/", change: func(d string) error { return os.Symlink(strings.Repeat("t", 300), d+"/l") }},
	{name: "O_TMPFILE", lower: "dir D/", change: linkTmpfile},
	{name: "whiteout of a file", lower: "file D/f TEXT", change: func(d string) error { return os.Remove(d + "/f") }},
	{name: "whiteout of a directory", lower: "dir D/s", change: func(d string) error { return os.Remove(d + "/s") }},
	{name: "whiteout below a lower directory", lower: "file D/s/t/f", change: func(d string) error { return os.Remove(d + "/s/t/f") }},
	{name: "opaque", lower: "file D/s/f TEXT", prepare: func(t *testing.T, d string) {
		harness.Check(t, os.RemoveAll(d+"/s"))
	}, change: func(d string) error { return os.Mkdir(d+"/s", 0o755) }},
	{name: "file over a whiteout", lower: "file D/f TEXT", prepare: func(t *testing.T, d string) {
		harness.Check(t, os.Remove(d+"/f"))
	}, change: func(d string) error { return createFile(d + "/f") }},
	{name: "rename", lower: "file D/f TEXT", change: func(d string) error { return os.Rename(d+"/f", d+"/g") }},
	{name: "rename over a lower file", lower: "file D/f TEXT", prepare: func(t *testing.T, d string) {
		harness.Write(t, d+"/g", "new")
	}, change: func(d string) error { return os.Rename(d+"/g", d+"/f") }},
	{name: "exchange", lower: "file D/f TEXT\nfile D/g \"g\"", change: func(d string) error {
		return unix.Renameat2(unix.AT_FDCWD, d+"/f", unix.AT_FDCWD, d+"/g", unix.RENAME_EXCHANGE)
	}},
	{name: "redirect", lower: "file D/s/f TEXT", redirects: true, change: func(d string) error { return os.Rename(d+"/s", d+"/u") }},
	{name: "rename of an upper directory", lower: "dir D/", prepare: func(t *testing.T, d string) {
		harness.Mkdir(t, d+"/s/t")
	}, change: func(d string) error { return os.Rename(d+"/s", d+"/"+strings.Repeat("u", 250)) }},
	{name: "link of a lower file", lower: "file D/f TEXT", change: func(d string) error { return os.Link(d+"/f", d+"/g") }},
	{name: "link of an upper file", lower: "dir D/", prepare: func(t *testing.T, d string) {
		harness.Write(t, d+"/f", "upper")
	}, change: func(d string) error { return os.Link(d+"/f", d+"/g") }},
	{name: "copy-up of a hard link (index)", lower: "file D/f TEXT\nlink D/g D/f",
		change: func(d string) error { return appendMore(d + "/g") },
		data:   "f g", whole: scarceLower + "more"},
	{name: "xattr of a lower file", lower: "file D/f TEXT", change: setBigXattr},
	{name: "xattr of an upper file", lower: "dir D/", prepare: func(t *testing.T, d string) {
		harness.Write(t, d+"/f", "upper")
	}, change: setBigXattr},
	{name: "write", lower: "dir D/", prepare: prepareData, change: func(d string) error { return writeData(d, 0) },
		data: "f", whole: "kept" + scarceData},
	{name: "append", lower: "dir D/", prepare: prepareData, change: func(d string) error {
		if err := os.Truncate(d+"/f", 4); err != nil { // what a first try has written
			return err
		}
		return writeData(d, os.O_APPEND)
	}, data: "f", whole: "kept" + scarceData},
	{name: "mapped write", lower: "dir D/", prepare: func(t *testing.T, d string) {
		prepareData(t, d)
		harness.Check(t, os.Truncate(d+"/f", int64(4+len(scarceData))))
	}, change: writeMapped, data: "f", whole: "kept" + scarceData},
	{name: "fallocate", lower: "dir D/", prepare: prepareData, change: func(d string) error {
		return withFile(d+"/f", os.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 1<<20) })
	}, data: "f", whole: "kept" + strings.Repeat("\x00", 1<<20-4)},
}

// createFile makes an empty file.
func createFile(path string) error { return withFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, nil) }

// withFile calls f for a file that it opens and closes. f may be nil.
func withFile(path string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	if f != nil {
		err = f(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// linkTmpfile makes a file without a name, and gives it one.
func linkTmpfile(d string) error {
	return withFile(d, unix.O_TMPFILE|os.O_WRONLY, func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, d+"/f", unix.AT_SYMLINK_FOLLOW)
	})
}

// appendMore writes "more" behind scarceLower.
func appendMore(path string) error {
	return withFile(path, os.O_WRONLY, func(fd int) error {
		if _, err := unix.Pwrite(fd, []byte("more"), int64(len(scarceLower))); err != nil {
			return err
		}
		return unix.Fsync(fd)
	})
}

func setBigXattr(d string) error {
	return unix.Setxattr(d+"/f", "user.big", []byte(strings.Repeat("v", 2000)), 0)
}

func prepareData(t *testing.T, d string) {
	t.Helper()
	harness.Write(t, d+"/f", "kept")
	harness.Check(t, withFile(d+"/f", os.O_RDONLY, unix.Fsync))
}

// writeData writes scarceData behind the first four bytes of a file, and waits until it is in the
// upper.
func writeData(d string, flags int) error {
	return withFile(d+"/f", os.O_WRONLY|flags, func(fd int) error {
		if _, err := unix.Seek(fd, 4, unix.SEEK_SET); err != nil {
			return err
		}
		for rest := []byte(scarceData); len(rest) > 0; {
			n, err := unix.Write(fd, rest)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		return unix.Fsync(fd)
	})
}

// errBus is the error of an access to a mapping for which a file system has sent SIGBUS.
var errBus = errors.New("SIGBUS")

// wantRefusal fails the test unless err is the wanted one, or errBus.
func wantRefusal(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, errBus) {
		harness.WantErr(t, what, err, want)
	}
}

// writeMapped is writeData through a mapping. With passthrough the file system of the upper sends
// SIGBUS if it has no room.
func writeMapped(d string) error {
	return withFile(d+"/f", os.O_RDWR, func(fd int) (err error) {
		m, err := unix.Mmap(fd, 0, 4+len(scarceData), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Munmap(m)) }()
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if recover() != nil {
				err = errBus
			}
		}()
		copy(m[4:], scarceData)
		return unix.Msync(m, unix.MS_SYNC)
	})
}

// shortage is a file system of an upper, and how a resource of it is used up and freed.
type shortage struct {
	dir      string // where the file system is mounted
	inodes   bool   // the resource is inodes, else blocks
	expected syscall.Errno
}

// exhaust uses the resource up.
func (s *shortage) exhaust(t *testing.T) {
	t.Helper()
	filler := s.dir + "/filler"
	harness.Mkdir(t, filler)
	if s.inodes {
		for i := 0; ; i++ {
			if err := createFile(fmt.Sprint(filler, "/", i)); err != nil {
				harness.WantErr(t, "using up the inodes", err, s.expected)
				return
			}
		}
	}
	harness.Check(t, withFile(filler+"/blocks", os.O_CREATE|os.O_WRONLY, func(fd int) error {
		at := int64(0)
		for size := int64(1 << 30); size >= 512; size /= 2 {
			for unix.Fallocate(fd, 0, at, size) == nil {
				at += size
			}
		}
		return nil
	}))
}

// free makes the resource available again.
func (s *shortage) free(t *testing.T) {
	t.Helper()
	harness.Check(t, os.RemoveAll(s.dir+"/filler"))
	unix.Sync() // ext4 frees the blocks of a removed file when its journal commits
}

// A change for which the upper has no room fails with ENOSPC and leaves the tree as it was, in the
// mount and in the upper. It succeeds when there is room again.
func TestFullUpperAtEachChange(t *testing.T) {
	harness.NeedDaemon(t)
	// The changes that have to be refused, because they need the resource.
	needBlocks := []string{
		"copy-up of data", "copy-up by truncation", "copy-up of a directory", "copy-up of a symlink", "copy-up of an xattr",
		"create below a lower directory", "mkdir", "symlink", "whiteout below a lower directory", "opaque",
		"copy-up of a hard link (index)", "xattr of a lower file", "xattr of an upper file", "write", "append",
		"mapped write", "fallocate", "redirect", "link of a lower file", "rename",
	}
	needInodes := []string{
		"copy-up of data", "copy-up of metadata", "copy-up of an owner", "copy-up by truncation", "copy-up of a directory",
		"copy-up of a symlink", "copy-up of an xattr", "create", "create below a lower directory", "mkdir", "mknod",
		"symlink", "O_TMPFILE", "whiteout below a lower directory", "opaque", "file over a whiteout", "rename", "exchange",
		"redirect", "link of a lower file", "copy-up of a hard link (index)", "xattr of a lower file",
	}
	for _, remount := range []bool{false, true} {
		name := map[bool]string{false: "the same mount goes on", true: "after a remount"}[remount]
		t.Run(name, func(t *testing.T) {
			harness.EachIO(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
				for _, inodes := range []bool{false, true} {
					what, need := "blocks", needBlocks
					args := []string{"-m", "0", "-I", "128", "-b", "4096"} // each xattr takes a block
					if inodes {
						what, need = "inodes", needInodes
						args = append(args, "-N", "600")
					}
					t.Run(what, func(t *testing.T) {
						opts := e.Opts
						e := harness.NewEnv(t, e.Mode)
						e.Opts = opts
						dir := testkit.MountImage(t, "ext4", "", args...)
						s := &shortage{dir: dir, inodes: inodes, expected: syscall.ENOSPC}
						refused := tryScarce(t, e, s, remount, "index=on,redirect_dir=on,metacopy=on")
						for _, c := range need {
							if !slices.Contains(refused, c) {
								t.Errorf("without %s, %q is not refused", what, c)
							}
						}
					})
				}
			})
		})
	}
}

// The kernel ignores how much of a page that it writes back was stored, so a WRITE that finds room
// for a part must fail. Otherwise fsync and msync succeed, and the rest is lost.
func TestShortWritebackIsTold(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for name, write := range map[string]func(d string) error{
			"write": func(d string) error { return writeData(d, 0) }, "mapped write": writeMapped,
		} {
			t.Run(name, func(t *testing.T) {
				opts := e.Opts
				e := harness.NewEnv(t, e.Mode)
				e.Opts = opts
				o := e.Overlay(t, "dir d")
				onSmallUpper(t, o, "1m")
				o.Mount()
				d := o.Path("d")
				prepareData(t, d)
				harness.Check(t, os.Truncate(d+"/f", int64(4+len(scarceData))))
				filler := filepath.Dir(o.Upper) + "/filler"
				harness.Check(t, os.WriteFile(filler, make([]byte, 1<<20-4096-len(scarceData)/2), 0o600))
				wantRefusal(t, name, write(d), syscall.ENOSPC)
				wantPart(t, name, d+"/f", "kept"+scarceData, false)
				harness.Check(t, os.Remove(filler))
				harness.Check(t, write(d))
				o.Remount()
				wantPart(t, name, d+"/f", "kept"+scarceData, true)
			})
		}
	})
}

// tryScarce runs scarceChanges on an upper in s, and returns those that were refused.
func tryScarce(t *testing.T, e *harness.Env, s *shortage, remount bool, opts ...string) (refused []string) {
	t.Helper()
	redirects := slices.ContainsFunc(opts, func(o string) bool { return strings.Contains(o, "redirect_dir=on") })
	var lower strings.Builder
	var changes []scarceChange
	for _, c := range scarceChanges {
		if c.redirects && !redirects {
			continue
		}
		changes = append(changes, c)
		table := strings.ReplaceAll(c.lower, "D/", c.folder()+"/")
		fmt.Fprintln(&lower, strings.ReplaceAll(table, "TEXT", harness.Word(scarceLower)))
	}
	o := e.Overlay(t, lower.String())
	o.Opts = append(slices.Clone(o.Opts), opts...)
	o.Upper, o.Work = filepath.Join(s.dir, "upper"), filepath.Join(s.dir, "work")
	harness.Mkdir(t, o.Upper, o.Work)
	o.Mount()
	tree := func(c *scarceChange) map[string]string {
		t.Helper()
		v := harness.View{Mode: true, Owner: true, Nlink: true, Xattrs: true}
		v.Skip = func(rel string) bool { return slices.Contains(strings.Fields(c.data), rel) }
		lines, err := harness.Snapshot(o.Path(c.folder()), v)
		harness.Check(t, err)
		return lines
	}
	want := map[string]map[string]string{}
	check := func(when string) {
		t.Helper()
		for i := range changes {
			c := &changes[i]
			if got := tree(c); !maps.Equal(got, want[c.name]) {
				t.Errorf("%s: %s: the tree is\n%v\nwant\n%v", c.name, when, got, want[c.name])
			}
			for _, f := range strings.Fields(c.data) {
				wantPart(t, c.name+": "+when, o.Path(c.folder()+"/"+f), c.whole, !slices.Contains(refused, c.name))
			}
		}
	}
	for i := range changes {
		if changes[i].prepare != nil {
			changes[i].prepare(t, o.Path(changes[i].folder()))
		}
	}
	s.exhaust(t)
	for i := range changes {
		c := &changes[i]
		before := tree(c)
		err := c.change(o.Path(c.folder()))
		want[c.name] = tree(c)
		if err == nil {
			continue
		}
		refused = append(refused, c.name)
		wantRefusal(t, c.name, err, s.expected)
		if !maps.Equal(want[c.name], before) {
			t.Errorf("%s: refused, but the tree is\n%v\nand was\n%v", c.name, want[c.name], before)
		}
	}
	check("while the resource is used up")
	s.free(t)
	if remount {
		o.Remount()
		check("after the remount")
	}
	for i := range changes {
		c := &changes[i]
		if !slices.Contains(refused, c.name) {
			continue
		}
		if err := c.change(o.Path(c.folder())); err != nil {
			t.Errorf("%s: although there is room again: %v", c.name, err)
		}
		want[c.name] = tree(c)
	}
	first := refused
	refused = nil
	check("with room again")
	o.Remount()
	check("at the end")
	o.Unmount()
	if rest := harness.WorkRest(o.Work + "/work"); len(rest) > 0 {
		t.Errorf("the work directory still holds %v", rest)
	}
	return first
}

// wantPart fails the test unless a file is whole, or, if a change of it was refused, each of its
// bytes is that of whole or 0.
func wantPart(t *testing.T, when, path, whole string, wantWhole bool) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	if wantWhole {
		if string(text) != whole {
			t.Errorf("%s: %s", when, harness.Brief(string(text)))
		}
		return
	}
	if len(text) < 4 || len(text) > len(whole) {
		t.Errorf("%s: %d bytes", when, len(text))
		return
	}
	for i, b := range text {
		if b != whole[i] && (b != 0 || i < 4) {
			t.Errorf("%s: byte %d is %q", when, i, b)
			return
		}
	}
}
