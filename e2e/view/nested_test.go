package view

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Layers and uppers lie on other overlays. The kernel refuses such uppers (D63, xfstests
// overlay/022).
func TestThreeDeep(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const ours, kernel = harness.Ours, harness.Kernel
		for _, kinds := range [][]harness.Implementation{
			{ours, ours, ours}, {kernel, ours, ours}, {ours, kernel, ours}, {ours, ours, kernel}, {kernel, ours, kernel},
		} {
			for _, place := range []upperPlace{uppersOutside, uppersBelow} {
				if e.Mode == harness.ModeFusermount && slices.Contains(kinds, kernel) {
					continue // not allowed to plain users
				}
				if place == uppersBelow && slices.Contains(kinds[1:], kernel) {
					continue // the kernel refuses an upper on FUSE
				}
				name := fmt.Sprintf("%s below %s below %s%s", kinds[0], kinds[1], kinds[2], place)
				t.Run(name, func(t *testing.T) { threeDeep(t, harness.NewEnv(t, e.Mode), kinds, place) })
			}
		}
	})
}

// upperPlace is the place of the uppers of threeDeep, as a part of the name of the test.
type upperPlace string

const (
	uppersOutside upperPlace = ""
	uppersBelow   upperPlace = ", each with its upper in the one below"
)

// threeDeep mounts overlays on one another, the lowest first, and works in each. It compares each
// with a plain copy in which the same was done, and does so once more after all were unmounted and
// mounted anew.
func threeDeep(t *testing.T, e *harness.Env, kinds []harness.Implementation, place upperPlace) {
	bottom := e.Overlay(t, harness.BusyTree)
	copyOf := filepath.Join(e.Dir, "plain")
	harness.Shell(t, e.Dir, "cp -a lower0 plain")
	var stack []*harness.Overlay
	lower := bottom.Lowers[0]
	for depth, kind := range kinds {
		home := fmt.Sprintf("%s/depth%d", e.Dir, depth)
		o := &harness.Overlay{T: t, Env: e, Kernel: kind == harness.Kernel, Log: home + "/log", Lowers: []string{lower},
			Upper: home + "/upper", Work: home + "/work", Point: home + "/mnt"}
		harness.Mkdir(t, home, o.Point)
		if below := len(stack) - 1; place == uppersBelow && below >= 0 {
			folder := stack[below].Path(fmt.Sprintf("layers%d/", depth)) // not one that the mount has from below
			o.Upper, o.Work = folder+"upper", folder+"work"
		}
		harness.Mkdir(t, o.Upper, o.Work)
		if depth > 1 && o.Upper != home+"/upper" && stack[0].Kernel && !takesXattrs(stack[0].Point) {
			t.Skip("the kernel's overlayfs escapes no xattrs (before Linux 6.7): the uppermost upper takes no whiteouts")
		}
		o.Mount()
		stack = append(stack, o)
		harness.Shell(t, o.Point, harness.WorkAtDepth[depth])
		harness.Shell(t, copyOf, harness.WorkAtDepth[depth])
		compareNested(t, fmt.Sprintf("depth %d", depth), copyOf, o.Point)
		lower = o.Point
	}
	for range 2 {
		for _, o := range slices.Backward(stack) {
			o.Unmount()
		}
		for _, o := range stack {
			o.Mount()
		}
		compareNested(t, "mounted anew", copyOf, stack[len(stack)-1].Point)
	}
	harness.Shell(t, e.Dir, "rm -rf plain/*; rm -rf "+stack[len(stack)-1].Point+"/[!l]*")
	compareNested(t, "emptied", copyOf, stack[len(stack)-1].Point)
	for _, o := range slices.Backward(stack) {
		o.Unmount()
	}
	harness.WantTree(t, "the lowest layer", bottom.Lowers[0],
		strings.ReplaceAll(strings.ReplaceAll(harness.BusyTree, " 0755", ""), " 0777", ""))
}

// takesXattrs reports whether an overlay can keep the xattrs of another one.
func takesXattrs(dir string) bool {
	for _, prefix := range []string{"trusted.", "user."} {
		name := prefix + "overlay.trial"
		if unix.Setxattr(dir, name, nil, 0) == nil {
			return unix.Removexattr(dir, name) == nil
		}
	}
	return false
}

// compareNested compares all but the folders of the uppers.
func compareNested(t *testing.T, what, want, got string) {
	t.Helper()
	v := harness.NoLinksView
	v.Skip = func(rel string) bool { return strings.HasPrefix(rel, "layers") }
	harness.CompareTrees(t, what, want, got, v)
}

// containerRoot is an overlay whose lower is the root of a container: a static shell, the program,
// and layers for an overlay in it.
func containerRoot(t *testing.T, e *harness.Env) *harness.Overlay {
	t.Helper()
	outer := e.Overlay(t, `
		dir proc
		file dev/fuse ""
		file dev/null ""
		symlink bin/sh busybox
		file o/lower/f "lower"
		file o/lower/d/x "x"
		file o/lower/d/y "y"
		file o/lower/gone "g"
		dir o/upper
		dir o/mnt`)
	harness.Check(t, harness.CopyFile(harness.Busybox(t), outer.Lowers[0]+"/bin/busybox"))
	harness.Check(t, harness.CopyFile(harness.Program, outer.Lowers[0]+"/bin/fuse-overlay"))
	for _, library := range libraries(harness.Program) { // with the race detector
		harness.Mkdir(t, filepath.Dir(outer.Lowers[0]+library))
		harness.Check(t, harness.CopyFile(library, outer.Lowers[0]+library))
	}
	return outer
}

const (
	mountInside = "fuse-overlay -o lowerdir=/o/lower,upperdir=/o/upper,workdir=/o/work /o/mnt\n"
	workInside  = `
		cd /o/mnt; echo changed >f; rm gone; rm -r d; mkdir d; echo new >d/new; mv f moved; ln moved link; ln -s link soft
		mkdir -p a/b; echo deep >a/b/c; mv a/b a/e; chmod 750 a/e; cd /`
	treeInside = "file moved \"changed\\n\"\nfile link \"changed\\n\"\nsymlink soft link\nfile d/new \"new\\n\"\nfile a/e/c \"deep\\n\""
)

// The program runs in a root that is a mount of the program, as an engine in a container does.
func TestInsideOfWhatItServes(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		outer := containerRoot(t, e)
		inner := outer.Path("o/mnt")
		inside := func(script string) string {
			t.Helper()
			return harness.Chroot(t, outer.Point, "/bin/sh", "PATH=/bin\n"+script)
		}
		start := func() {
			t.Helper()
			outer.Mount()
			for _, path := range []string{"dev/fuse", "dev/null", "proc"} {
				harness.Check(t, unix.Mount("/"+path, outer.Path(path), "", unix.MS_BIND|unix.MS_REC, ""))
			}
		}
		t.Cleanup(func() { // before the guard of the outer mount
			for _, path := range []string{"o/mnt", "proc", "dev/null", "dev/fuse"} {
				_ = unix.Unmount(outer.Path(path), unix.MNT_DETACH)
			}
		})
		stop := func() {
			t.Helper()
			daemons := harness.ProcessesOf(outer.Path("bin/fuse-overlay"))
			if len(daemons) != 1 {
				t.Errorf("%d daemons serve the inner mount", len(daemons))
			}
			inside("umount /o/mnt")
			for _, pid := range daemons { // to its last thread: its root keeps the outer mount busy
				if !harness.WaitGone(pid, 5*time.Second) {
					t.Error("the daemon inside does not end with its mount")
				}
			}
		}
		start()
		inside("busybox --install -s /bin; " + mountInside + workInside)
		if m, ok := harness.MountAt(inner); !ok || m.Kind != "fuse.fuse-overlay" {
			t.Errorf("mounted inside: %v, %s", ok, m.Kind)
		}
		harness.WantTree(t, "inside", inner, treeInside)
		stop()
		inside(mountInside)
		harness.WantTree(t, "inside, mounted anew", inner, treeInside)
		stop()
		for _, path := range []string{"proc", "dev/null", "dev/fuse"} {
			harness.Check(t, unix.Unmount(outer.Path(path), unix.MNT_DETACH))
		}
		outer.Unmount()
		start()
		inside(mountInside)
		harness.WantTree(t, "inside, all mounted anew", inner, treeInside)
		harness.AppendTo(t, inner+"/moved", "more\n")
		harness.Equal(t, "seen from inside", inside("cat /o/mnt/link"), "changed\nmore\n")
		stop()
		harness.WantTree(t, "the inner lower, from outside", outer.Path("o/lower"),
			"file f \"lower\"\nfile d/x \"x\"\nfile d/y \"y\"\nfile gone \"g\"")
	})
}

// The same after pivot_root, without the old root.
func TestInsideAfterPivotRoot(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		outer := containerRoot(t, e)
		outer.Mount()
		harness.Check(t, os.WriteFile(outer.Path("script"), []byte(`
			busybox umount -l /old; PATH=/bin; busybox --install -s /bin; cd /
			grep -q '^fuse-overlay / fuse.fuse-overlay rw,' /proc/self/mounts
			`+mountInside+workInside+`
			umount /o/mnt
			`+mountInside+`
			cd /o/mnt; find . -type f | sort | while read f; do echo $f $(cat $f); done; cd /; umount /o/mnt`), 0o644))
		out, err := harness.RunIn("/", []string{"M=" + outer.Point}, time.Minute, "unshare", "-m", "bash", "-euc", `
			mount --bind $M $M; cd $M; mkdir old
			for path in dev/fuse dev/null proc; do mount --rbind /$path $path; done
			pivot_root . old; PATH=/bin exec /bin/sh -eu /script`)
		want := "./a/e/c deep\n./d/new new\n./link changed\n./moved changed\n"
		if err != nil || out != want {
			t.Errorf("%v: got %q, want %q", err, out, want)
		}
	})
}
