package attacks

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// valuesAtOnce is the number of values in each layer of TestHostileXattrs, times the factor.
const valuesAtOnce = 200

// A hostileValue is an xattr of the overlay that no overlay writes.
type hostileValue struct {
	object string // what has the xattr: file, dir
	attr   string // without the namespace of the mode's xattrs, or a whole name
	value  string
	// also are xattrs that the object has too.
	also map[string]string
}

// strings that are no redirects, or lead somewhere strange. Each is the value of the redirect of a
// directory, and of the file that holds the data of a metacopy.
var hostileRedirects = []string{
	"", "/", "//", ".", "..", "../", "/..", "/.", "./target", "../target", "target/..", "/target/..", "/target/../target",
	"/target/./f", "//target", "/target//f", "/target/", "target/", "/target", "target", "/target/f", "target/f", "/nothing",
	"/nothing/at/all", "/loop", "/loop2", "loop", "/link", "/link/f", "/fifo", "/white", "/self", "/proc/self/root/etc", "/etc/shadow",
	"../../../../../../etc/shadow", "/proc/self/fd/3", "target\x00", "\x00", "/target\x00/f", "\x00/target", "/\xff\xfe", "/target\n",
	"/.wh.target", "/.wh..wh..opq", "/target/.wh.f", "\x1b[31m", "/ target", strings.Repeat("a", 255), strings.Repeat("a", 256),
	"/" + strings.Repeat("a", 254), "/" + strings.Repeat("b", 256), strings.Repeat("/a", 120), strings.Repeat("/a", 127),
	strings.Repeat("../", 80), strings.Repeat("a/", 1000), strings.Repeat("/", 300), strings.Repeat("x", 1<<16-1), strings.Repeat("/x", 1<<15-1),
}

// header is the beginning of the value of a metacopy xattr: version, length, flags, digest
// algorithm (struct ovl_metacopy).
func header(version, length, flags, algorithm byte) string {
	return string([]byte{version, length, flags, algorithm})
}

var hostileMetacopies = []string{
	"x", "\x00", "\x00\x00\x00", header(0, 4, 0, 0), header(1, 4, 0, 0), header(0, 0, 0, 0), header(0, 255, 0, 0), header(0, 4, 255, 0),
	header(0, 4, 0, 255), header(0, 36, 0, 1), header(0, 36, 0, 1) + strings.Repeat("d", 32), header(0, 36, 0, 2) + strings.Repeat("d", 32),
	header(0, 68, 0, 2) + strings.Repeat("d", 64), header(0, 36, 0, 1) + strings.Repeat("d", 31), header(0, 36, 0, 1) + strings.Repeat("d", 33),
	header(255, 255, 255, 255) + strings.Repeat("\xff", 251), strings.Repeat("\x00", 256), strings.Repeat("m", 1<<16-1),
}

// handles returns values of an origin: handles of all lengths and types, cut and too long.
func handles(t *testing.T, dir string) (values []string) {
	t.Helper()
	const magic = 0xfb
	for _, length := range []int{0, 1, 2, 3, 20, 21, 22, 24, 28, 29, 30, 60, 100, 127, 128, 129, 200, 255, 256, 1000} {
		values = append(values, strings.Repeat("\x00", length), strings.Repeat("\xff", length), strings.Repeat("\xfb", length))
		for _, kind := range []byte{0, 1, 2, 0x81, 0xfe, 0xff} {
			// version, magic, len, flags, type, uuid (struct ovl_fb); len is right or wrong.
			for _, stated := range []int{length, length + 1, 0} {
				value := string([]byte{0, magic, byte(stated), 1, kind}) + strings.Repeat("u", 16)
				if length > len(value) {
					value += strings.Repeat("h", length-len(value))
				}
				values = append(values, value)
			}
		}
	}
	// Handles that are right, but of other file systems, with no UUID and with that of the layer.
	for _, path := range []string{"/proc/self/stat", "/sys", "/dev/shm", "/dev/null", dir, "/"} {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EOVERFLOW) || errors.Is(err, unix.ENOENT) {
			continue
		}
		harness.Check(t, err)
		id := handle.Bytes()
		for _, flags := range []byte{0, 1, 2, 4, 7} {
			values = append(values, string([]byte{0, magic, byte(21 + len(id)), flags, byte(handle.Type())})+strings.Repeat("\x00", 16)+string(id))
		}
	}
	return values
}

// hostileOverrides are values of override_stat.
var hostileOverrides = []string{
	"", "0", "0:0", "0:0:", ":::", "::::::", "0:0:04777", "0:0:4777:file", "0:0:99999", "0:0:0777777777777777777777", "-1:-1:0755",
	"4294967295:4294967295:0755", "4294967296:0:0755", "18446744073709551616:0:0755:file", "0:0:0755:char", "0:0:0755:char-1-5",
	"0:0:0755:block-8-0", "0:0:0755:char-1", "0:0:0755:char-1-5-9", "0:0:0755:char-4294967296-1", "0:0:0755:char--1--5", "0:0:0755:nothing",
	"0:0:0755:dir", "0:0:0755:symlink", "0:0:0755:pipe", "0:0:0755:socket", "0:0:0755:FILE", " 0:0:0755", "0:0:0755 ", "0:0:0755\n", "0:0:0755\x00",
	"\x000:0:0755", "0x0:0:0755", "0:0:rwxr-xr-x", "1e3:0:0755", "٠:٠:٠", "\xff\xfe\xfd", strings.Repeat("0", 1000) + ":0:0755",
	strings.Repeat(":", 3000), strings.Repeat("9", 1<<16-1),
}

// small values of the remaining xattrs.
var hostileSmall = []string{
	"", "y", "n", "x", "Y", "yy", "y\x00", "\x00", "\xff", "i", "a", "ai", "aia", "S", "U+0", "U-1", "L+1", "U+99999999999999999999", "U+-1", "+1", "U",
	strings.Repeat("y", 255), strings.Repeat("U+", 500), strings.Repeat("\x00", 1<<16-1),
}

// hostileValues are all values with which a layer is filled.
func hostileValues(t *testing.T, e *harness.Env, dir string) (all []hostileValue) {
	t.Helper()
	prefix := e.XattrPrefix()
	for _, value := range hostileRedirects {
		all = append(all, hostileValue{"dir", prefix + "redirect", value, nil},
			hostileValue{"file", prefix + "redirect", value, map[string]string{prefix + "metacopy": ""}})
	}
	for _, value := range hostileMetacopies {
		all = append(all, hostileValue{"file", prefix + "metacopy", value, nil},
			hostileValue{"file", prefix + "metacopy", value, map[string]string{prefix + "redirect": "/target/f"}},
			hostileValue{"dir", prefix + "metacopy", value, nil})
	}
	for _, value := range handles(t, dir) {
		all = append(all, hostileValue{"file", prefix + "origin", value, nil}, hostileValue{"dir", prefix + "origin", value, nil})
	}
	for _, value := range hostileOverrides {
		for _, attr := range []string{"user.containers.override_stat", "user.fuseoverlayfs.override_stat"} {
			all = append(all, hostileValue{"file", attr, value, nil}, hostileValue{"dir", attr, value, nil})
		}
		all = append(all, hostileValue{"file", "user.containers.override_security.capability", value, nil})
	}
	for _, value := range hostileSmall {
		for _, attr := range []string{prefix + "opaque", prefix + "impure", prefix + "nlink", prefix + "upper", prefix + "uuid", prefix + "protattr",
			prefix + "whiteout", prefix + "xattr_of_tomorrow", "user.fuseoverlayfs.opaque"} {
			all = append(all, hostileValue{"file", attr, value, nil}, hostileValue{"dir", attr, value, nil})
		}
	}
	return all
}

// fill makes an object for each value in a layer. It returns the names of those that the layer's
// file system takes.
func fill(t *testing.T, layer string, values []hostileValue) (names []string) {
	t.Helper()
	for i, v := range values {
		name := fmt.Sprintf("%s-%d", v.object, i)
		path := filepath.Join(layer, name)
		if v.object == "dir" {
			harness.Mkdir(t, path)
			harness.Write(t, path+"/in", "i")
		} else {
			harness.Write(t, path, "text")
		}
		err := unix.Setxattr(path, v.attr, []byte(v.value), 0)
		for attr, value := range v.also {
			err = errors.Join(err, unix.Setxattr(path, attr, []byte(value), 0))
		}
		switch {
		case err == nil:
			names = append(names, name)
		case len(v.value) > 1000 && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG)):
			harness.Check(t, os.RemoveAll(path))
		default:
			t.Fatalf("%s of %s: %v", v.attr, name, err)
		}
	}
	return names
}

// clearErrnos are the errors that a process may get for an object of a layer that is damaged, or
// that is not what it shows.
var clearErrnos = map[string]bool{
	"ok": true, "EIO": true, "EPERM": true, "EACCES": true, "EINVAL": true, "ENOENT": true, "ENODATA": true, "EISDIR": true, "ENOTDIR": true,
	"EXDEV": true, "ENOTEMPTY": true, "EEXIST": true, "ENXIO": true, "ELOOP": true, "EOPNOTSUPP": true,
}

// looks are what a process does with an object without a change.
var looks = map[string]func(path string) error{
	"lstat": func(path string) error { var st unix.Stat_t; return unix.Lstat(path, &st) },
	"read": func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		if harness.KindOf(path) == unix.S_IFDIR {
			_, err = f.Readdirnames(-1)
			return err
		}
		_, err = io.Copy(io.Discard, io.LimitReader(f, 1<<20))
		return err
	},
	"a name in it": func(path string) error { var st unix.Stat_t; return unix.Lstat(path+"/in", &st) },
}

// changes are what a process does with an object to change it, in this order.
var changes = []struct {
	name string
	do   func(path string) error
}{
	{"chmod", func(path string) error { return unix.Chmod(path, 0o700) }},
	{"xattr", func(path string) error { return unix.Lsetxattr(path, "user.mine", []byte("v"), 0) }},
	{"append", func(path string) error {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("+"))
		return errors.Join(err, unix.Close(fd))
	}},
	{"create in it", func(path string) error { return unix.Mkdir(path+"/new", 0o755) }},
	{"rename", func(path string) error { return unix.Rename(path, path+"~") }},
	{"remove", func(path string) error { return os.RemoveAll(path + "~") }},
}

// A layer whose owner has written every kind of value into the overlay's own xattrs gives each
// process one clear error, or an object. Nothing hangs, no right comes of it, and the daemon lives.
// Of a layer of root's the errors are those of the kernel's overlayfs.
func TestHostileXattrs(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, where := range []string{"lower", "upper"} {
			t.Run(where, func(t *testing.T) { hostileLayer(t, newEnvLike(t, e), where) })
		}
	})
}

// hostileTargets is the lower to which redirects lead.
const hostileTargets = "file target/f \"data\"\ndir self\ndir loop\ndir loop2\nsymlink link target\nfifo fifo\nwhite white\nfile file \"text\""

func hostileLayer(t *testing.T, e *harness.Env, where string) {
	t.Helper()
	o := e.Overlay(t, "", hostileTargets)
	layer := o.Lowers[0]
	if where == "upper" {
		layer = o.Upper
	} else if e.Mode != harness.ModeFusermount {
		// A tmpfs takes values of 64 KiB.
		harness.Check(t, unix.Mount("layer", layer, "tmpfs", 0, "mode=755"))
		t.Cleanup(func() { _ = unix.Unmount(layer, unix.MNT_DETACH) })
	}
	for name, to := range map[string]string{"loop": "/loop2", "loop2": "/loop", "self": "/self"} {
		harness.Mkdir(t, filepath.Join(layer, name))
		harness.Check(t, unix.Setxattr(filepath.Join(layer, name), e.XattrPrefix()+"redirect", []byte(to), 0))
	}
	harness.Check(t, unix.Setxattr(layer, e.XattrPrefix()+"impure", []byte("y"), 0))
	values := hostileValues(t, e, e.Dir)
	rand.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
	values = values[:min(len(values), valuesAtOnce*factor())]
	names := append(fill(t, layer, values), "loop", "loop2", "self")
	owners := map[string]string{}
	for _, name := range names {
		owners[name] = harness.Owner(t, filepath.Join(layer, name))
	}
	o.Opts = append(o.Opts, harness.Redirects, "metacopy=on", "xattr_whiteouts")
	o.Mount()
	seen := look(t, o, names)
	for name, owner := range owners {
		if got := seen[name+" lstat"]; got == "ok" && e.Mode == harness.ModeRoot {
			harness.Equal(t, "owner and mode of "+name, harness.Owner(t, o.Path(name)), owner)
		}
	}
	compared := 0
	if e.Mode == harness.ModeRoot {
		compared = compareLooks(t, o, names, seen, values)
	}
	const changedInMount = 400 // the harness ends a mount that is too old
	for i, name := range names {
		if i%changedInMount == 0 {
			o.Remount()
		}
		for _, change := range changes {
			if errno := harness.ErrnoName(change.do(o.Path(name))); !clearErrnos[errno] {
				t.Errorf("%s of %s: %s", change.name, name, errno)
			}
		}
	}
	if !harness.Alive(o.PID) {
		t.Fatal("the daemon has died")
	}
	harness.WantText(t, o.Path("target/f"), "data")
	harness.AppendTo(t, o.Path("target/f"), "+")
	o.Remount()
	harness.WantText(t, o.Path("target/f"), "data+")
	t.Logf("%d objects with hostile values, %d results compared with the kernel's overlayfs", len(names), compared)
}

// look makes all looks at all objects, and returns their results by object and look.
func look(t *testing.T, o *harness.Overlay, names []string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for _, name := range names {
		for what, do := range looks {
			errno := harness.ErrnoName(do(o.Path(name)))
			seen[name+" "+what] = errno
			if !clearErrnos[errno] {
				t.Errorf("%s of %s: %s", what, name, errno)
			}
		}
	}
	if _, err := os.ReadDir(o.Point); err != nil {
		t.Errorf("the listing of the root: %v", err)
	}
	return seen
}

// valueOf returns the value of an object that fill has made.
func valueOf(values []hostileValue, name string) (v hostileValue, ok bool) {
	_, number, ok := strings.Cut(name, "-")
	if !ok {
		return hostileValue{object: name}, false
	}
	i, err := strconv.Atoi(number)
	return values[i], err == nil
}

func (v hostileValue) String() string {
	return fmt.Sprintf("%s %s=%s", v.object, v.attr, harness.Brief(v.value))
}

// mayDiffer reports whether the object may have an error here and none in the kernel's overlayfs,
// or the other way round: this program compares values to their last byte, and checks the header of
// a metacopy when it looks the file up. An empty redirect is none here.
func (v hostileValue) mayDiffer() bool {
	_, attr, _ := strings.Cut(v.attr, "overlay.")
	switch attr {
	case "redirect":
		return v.value == "" || strings.Contains(v.value, "\x00")
	case "metacopy":
		return v.object == "file" && len(v.value) >= len(header(0, 4, 0, 0))
	}
	return false
}

// compareLooks compares the results with those of the kernel's overlayfs on the same layers: the
// same looks fail. Their errors differ: EINVAL here is EACCES or EIO there.
func compareLooks(t *testing.T, o *harness.Overlay, names []string, seen map[string]string, values []hostileValue) (compared int) {
	t.Helper()
	kernel := &harness.Overlay{T: t, Env: o.Env, Lowers: append([]string{o.Upper}, o.Lowers...), Point: o.Env.Dir + "/kernel", Kernel: true,
		KernelOpts: "redirect_dir=on,metacopy=on,index=off,xino=off"}
	harness.Mkdir(t, kernel.Point)
	kernel.Mount()
	defer kernel.Unmount()
	for _, name := range names {
		for what, do := range looks {
			compared++
			got, want := seen[name+" "+what], harness.ErrnoName(do(kernel.Path(name)))
			v, ok := valueOf(values, name)
			if differs := (got == "ok") != (want == "ok"); differs && !(ok && v.mayDiffer()) {
				t.Errorf("%s of %s: %s, in the kernel's overlayfs %s", what, v, got, want)
			}
		}
	}
	return compared
}
