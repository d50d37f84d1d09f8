package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Overlays on overlays: a layer that is a merged tree of its own.

// work of a user at each depth, on what the one below left. No hard link is taken apart: how many links an object shows of
// which some are gone differs from a plain copy, here and in the kernel.
var workAtDepth = []string{
	strings.NewReplacer("ln new/deep/f new/hard; ", "").Replace(busywork),
	`rm -r new/deep; mkdir new/deep; echo 2 >new/deep/second; mv etc/conf4 etc/conf5; echo more >>etc/conf
	chmod 640 etc/conf.bak; rm usr/share/doc/README; ln etc/conf var/link; rm new/soft; ln -s two new/soft
	truncate -s 5 var/data; rm -r etc/dir2; touch -d @1000 var/old; mkdir var/run; echo x >var/run/pid`,
	`echo 3 >new/deep/third; rm new/deep/second; rm -r usr; mkdir -p usr/share/doc; echo 3 >usr/share/doc/README
	chmod 700 var; cp -a etc etc.bak; rm etc/conf5; mkfifo etc/conf5; sed -i s/b/c/ etc/conf2
	rm -r var/run; mv new/soft var/soft; mkdir etc/dir2; echo again >etc/dir2/f`,
}

// seen compares what users see, but for numbers of links.
var seen = view{mode: true, owner: true, xattrs: true}

const ours, kernels = "ours", "kernel"

func TestThreeDeep(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for _, kinds := range [][]string{
			{ours, ours, ours}, {kernels, ours, ours}, {ours, kernels, ours}, {ours, ours, kernels}, {kernels, ours, kernels},
		} {
			for _, inside := range []bool{false, true} {
				if e.mode == modeFusermount && slices.Contains(kinds, kernels) {
					continue // not allowed to ordinary users
				}
				if inside && slices.Contains(kinds[1:], kernels) {
					continue // the kernel takes no upper on FUSE
				}
				name := strings.Join(kinds, " below ")
				if inside {
					name += ", each with its upper in the one below"
				}
				t.Run(name, func(t *testing.T) { threeDeep(t, newEnv(t, e.mode), kinds, inside) })
			}
		}
	})
}

// threeDeep mounts overlays on one another, the lowest first, works in each, and compares each with a plain copy in which
// the same was done; then once more after all were unmounted and mounted anew.
func threeDeep(t *testing.T, e *env, kinds []string, inside bool) {
	bottom := e.overlay(t, busyTree)
	copyOf := filepath.Join(e.dir, "plain")
	sh(t, e.dir, "cp -a lower0 plain")
	var stack []*overlay
	lower := bottom.lowers[0]
	for depth, kind := range kinds {
		home := fmt.Sprintf("%s/depth%d", e.dir, depth)
		o := &overlay{t: t, env: e, kernel: kind == kernels, log: home + "/log", lowers: []string{lower},
			upper: home + "/upper", work: home + "/work", mnt: home + "/mnt"}
		mkdir(t, home, o.mnt)
		if below := len(stack) - 1; inside && below >= 0 {
			folder := stack[below].path(fmt.Sprintf("layers%d/", depth)) // not one that the mount has from below
			o.upper, o.work = folder+"upper", folder+"work"
		}
		mkdir(t, o.upper, o.work)
		o.mount()
		stack = append(stack, o)
		sh(t, o.mnt, workAtDepth[depth])
		sh(t, copyOf, workAtDepth[depth])
		compareNested(t, fmt.Sprintf("depth %d", depth), copyOf, o.mnt)
		lower = o.mnt
	}
	for range 2 {
		for _, o := range slices.Backward(stack) {
			o.unmount()
		}
		for _, o := range stack {
			o.mount()
		}
		compareNested(t, "mounted anew", copyOf, stack[len(stack)-1].mnt)
	}
	sh(t, e.dir, "rm -rf plain/*; rm -rf "+stack[len(stack)-1].mnt+"/[!l]*")
	compareNested(t, "emptied", copyOf, stack[len(stack)-1].mnt)
	for _, o := range slices.Backward(stack) {
		o.unmount()
	}
	wantTree(t, "the lowest layer", bottom.lowers[0], strings.ReplaceAll(strings.ReplaceAll(busyTree, " 0755", ""), " 0777", ""))
}

// compareNested leaves out where uppers lie.
func compareNested(t *testing.T, what, want, got string) {
	t.Helper()
	v := seen
	v.skip = func(rel string) bool { return strings.HasPrefix(rel, "layers") }
	compareTrees(t, what, want, got, v)
}

// containerRoot is the lower of a container: a static shell and the program, and layers for an overlay inside of it.
func containerRoot(t *testing.T, e *env) *overlay {
	t.Helper()
	outer := e.overlay(t, `
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
	check(t, copyFile(busybox(t), outer.lowers[0]+"/bin/busybox"))
	check(t, copyFile(binPath, outer.lowers[0]+"/bin/fuse-overlay"))
	for _, library := range libraries(binPath) { // with the race detector
		mkdir(t, filepath.Dir(outer.lowers[0]+library))
		check(t, copyFile(library, outer.lowers[0]+library))
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

// The program runs in a root that it serves itself, as an engine in a container does.
func TestInsideOfWhatItServes(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		outer := containerRoot(t, e)
		inner := outer.path("o/mnt")
		inside := func(script string) string {
			t.Helper()
			return chroot(t, outer.mnt, "/bin/sh", "PATH=/bin\n"+script)
		}
		start := func() {
			t.Helper()
			outer.mount()
			for _, path := range []string{"dev/fuse", "dev/null", "proc"} {
				check(t, unix.Mount("/"+path, outer.path(path), "", unix.MS_BIND|unix.MS_REC, ""))
			}
		}
		t.Cleanup(func() { // before the guard of the outer mount
			for _, path := range []string{"o/mnt", "proc", "dev/null", "dev/fuse"} {
				_ = unix.Unmount(outer.path(path), unix.MNT_DETACH)
			}
		})
		stop := func() {
			t.Helper()
			daemons := processesOf(outer.path("bin/fuse-overlay"))
			if len(daemons) != 1 {
				t.Errorf("%d daemons serve the inner mount", len(daemons))
			}
			inside("umount /o/mnt")
			for _, pid := range daemons { // to its last thread: its root keeps the outer mount busy
				if !waitGone(pid, 5*time.Second) {
					t.Error("the daemon inside goes on after its mount is gone")
				}
			}
		}
		start()
		inside("busybox --install -s /bin; " + mountInside + workInside)
		if m, ok := mountAt(inner); !ok || m.kind != "fuse.fuse-overlay" {
			t.Errorf("mounted inside: %v, %s", ok, m.kind)
		}
		wantTree(t, "inside", inner, treeInside)
		stop()
		inside(mountInside)
		wantTree(t, "inside, mounted anew", inner, treeInside)
		stop()
		for _, path := range []string{"proc", "dev/null", "dev/fuse"} {
			check(t, unix.Unmount(outer.path(path), unix.MNT_DETACH))
		}
		outer.unmount()
		start()
		inside(mountInside)
		wantTree(t, "inside, all mounted anew", inner, treeInside)
		appendTo(t, inner+"/moved", "more\n")
		equal(t, "seen from inside", inside("cat /o/mnt/link"), "changed\nmore\n")
		stop()
		wantTree(t, "the inner lower, from outside", outer.path("o/lower"), "file f \"lower\"\nfile d/x \"x\"\nfile d/y \"y\"\nfile gone \"g\"")
	})
}

// The same after pivot_root, with nothing of the old root left to reach.
func TestInsideAfterPivotRoot(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		outer := containerRoot(t, e)
		outer.mount()
		check(t, os.WriteFile(outer.path("script"), []byte(`
			busybox umount -l /old; PATH=/bin; busybox --install -s /bin; cd /
			grep -q '^fuse-overlay / fuse.fuse-overlay rw,' /proc/self/mounts
			`+mountInside+workInside+`
			umount /o/mnt
			`+mountInside+`
			cd /o/mnt; find . -type f | sort | while read f; do echo $f $(cat $f); done; cd /; umount /o/mnt`), 0o644))
		out, err := runIn("/", []string{"M=" + outer.mnt}, time.Minute, "unshare", "-m", "bash", "-euc", `
			mount --bind $M $M; cd $M; mkdir old
			for path in dev/fuse dev/null proc; do mount --rbind /$path $path; done
			pivot_root . old; PATH=/bin exec /bin/sh -eu /script`)
		want := "./a/e/c deep\n./d/new new\n./link changed\n./moved changed\n"
		if err != nil || out != want {
			t.Errorf("%v: got %q, want %q", err, out, want)
		}
	})
}
