package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDeletedStaysDeleted(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t,
			"file a \"1\"\nfile d/f \"1\"\nfile d/sub/g \"1\"\nfile t/x \"1\"",
			"file a \"2\"\nfile b \"2\"\nfile d/f \"2\"\nfile d/h \"2\"\nfile d/sub/i \"2\"\nfile t/y \"2\"\nfile k/l \"2\"")
		for _, name := range []string{"a", "b", "d/f", "d/sub", "k/l"} {
			check(t, os.RemoveAll(o.path(name)))
		}
		check(t, os.RemoveAll(o.path("t")))
		check(t, os.MkdirAll(o.path("t/z"), 0o755))
		write(t, o.path("b"), "new")
		check(t, os.Remove(o.path("b")))
		want := "file d/h \"2\"\ndir t/z\ndir k"
		for range 3 {
			wantTree(t, "merged", o.mnt, want)
			for _, name := range []string{"a", "b", "d/f", "d/sub", "k/l", "t/x", "t/y"} {
				wantAbsent(t, o.path(name))
			}
			o.remount()
		}
		check(t, os.Mkdir(o.path("d/sub"), 0o755))
		check(t, os.Remove(o.path("k")))
		check(t, os.Mkdir(o.path("k"), 0o755))
		want = "file d/h \"2\"\ndir d/sub\ndir t/z\ndir k"
		o.remount()
		wantTree(t, "merged", o.mnt, want)
	})
}

// busywork is a workload of a user; it uses coreutils as users do.
const busywork = `
	mkdir -p new/deep/er; echo 1 >new/deep/f; ln new/deep/f new/hard; ln -s deep/f new/soft
	rm -r usr/share/doc; mkdir usr/share/doc; echo r >usr/share/doc/README
	echo more >>etc/conf; chmod 600 etc/conf2; mv etc/conf3 etc/conf4; cp -p etc/conf etc/conf.bak
	sed -i s/x/y/ etc/conf2; rm bin/tool; ln -s ../etc/conf bin/tool; mkfifo var/pipe
	touch -d @1000000 var/old; truncate -s 100000 var/sparse; dd if=/dev/zero of=var/data bs=1k count=300 status=none
	mv etc/dir etc/dir2; rm -rf usr/lib; mkdir -p usr/lib/x; chmod 2775 usr/lib`

const busyTree = `
	file etc/conf "a=x\n"
	file etc/conf2 "b=x\n"
	file etc/conf3 "c=x\n"
	file etc/dir/f "in dir"
	file bin/tool 0755 "#!/bin/sh\n"
	file usr/share/doc/a/copyright "c"
	file usr/share/doc/b/copyright "c"
	file usr/lib/lib.so "elf"
	dir var 0777`

// The kernel mounts the upper we wrote, and shows the same tree; and we what the kernel wrote.
func TestUpperIsTheKernels(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for _, first := range []string{"ours", "kernel"} {
			t.Run("written by "+first, func(t *testing.T) {
				o := newEnv(t, e.mode).overlay(t, busyTree)
				o.kernel = first == "kernel"
				o.mount()
				sh(t, o.mnt, busywork)
				want, err := snapshot(o.mnt, exact)
				check(t, err)
				o.unmount()
				for _, kernel := range []bool{true, false} {
					o.kernel = kernel
					o.mount()
					got, err := snapshot(o.mnt, exact)
					check(t, err)
					if d := diffLines(want, got); d != "" {
						t.Errorf("mounted by the kernel %v:\n%s", kernel, d)
					}
					o.unmount()
				}
			})
		}
	})
}

// chown -R of a whole tree: all owners change, contents and holes stay, the lower is as it was.
func TestChownRecursive(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, kinds(e.mode)+"\nfile sparse \"x\"\nsize sparse 67108864\nfile a/b/c/d \"deep\"")
		o.mount()
		sh(t, o.mnt, "chown -hR 1234:4321 .")
		for range 2 {
			v := full
			want, err := snapshot(o.lowers[0], v)
			check(t, err)
			got, err := snapshot(o.mnt, v)
			check(t, err)
			delete(want, ".")
			delete(got, ".")
			for p, line := range want {
				want[p] = strings.Replace(line, " own 0:0", " own 1234:4321", 1)
				if strings.Contains(p, "hard") {
					delete(want, p) // links may be broken, see TestFaultTwoLowerHardLinksAppend
					delete(got, p)
				}
			}
			if d := diffLines(want, got); d != "" {
				t.Errorf("after chown -R:\n%s", d)
			}
			o.remount()
		}
		if st := lstat(t, filepath.Join(o.upper, "sparse")); st.Blocks > 5000 {
			t.Errorf("the sparse file has %d blocks in the upper", st.Blocks)
		}
		equal(t, "the lower's owner", lstat(t, filepath.Join(o.lowers[0], "file")).Uid, 0)
	})
}

func TestHardLinks(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"x\"")
		write(t, o.path("a"), "one")
		for _, name := range []string{"b", "c"} {
			check(t, os.Link(o.path("a"), o.path(name)))
		}
		check(t, os.Mkdir(o.path("d"), 0o755))
		check(t, os.Link(o.path("low"), o.path("d/low2")))
		appendTo(t, o.path("b"), "+two")
		check(t, os.Chmod(o.path("c"), 0o600))
		appendTo(t, o.path("d/low2"), "+")
		for range 2 {
			for _, name := range []string{"a", "b", "c"} {
				wantText(t, o.path(name), "one+two")
				st := lstat(t, o.path(name))
				equal(t, name, fmt.Sprintf("%o %d %d", st.Mode&0o777, st.Nlink, st.Ino), fmt.Sprintf("600 3 %d", lstat(t, o.path("a")).Ino))
			}
			wantText(t, o.path("low"), "x+")
			equal(t, "nlink of low", lstat(t, o.path("low")).Nlink, 2)
			o.remount()
		}
		check(t, os.Remove(o.path("a")))
		equal(t, "nlink after a removal", lstat(t, o.path("b")).Nlink, 2)
		check(t, os.Rename(o.path("b"), o.path("c"))) // the same object: nothing happens
		wantNames(t, o.mnt, "b", "c", "d", "low")
		wantErr(t, "link of a directory", os.Link(o.path("d"), o.path("d2")), syscall.EPERM)
	})
}

// The daemon holds no more descriptors after a long day than after a short one.
func TestDescriptorsAreNotLeaked(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, thousandFiles())
		day := func(i int) {
			visit(t, o.mnt)
			d := o.path(fmt.Sprintf("day%d", i))
			mkdir(t, d)
			for k := range 200 {
				p := fmt.Sprintf("%s/f%d", d, k)
				write(t, p, "text")
				appendTo(t, o.path(fmt.Sprintf("d%02d/f%02d", k%20, (i+k/20)%50)), "+")
				f := open(t, p, os.O_RDWR)
				check(t, os.Remove(p))
				_, err := f.WriteString("unlinked")
				check(t, err)
				check(t, f.Close())
			}
			check(t, os.RemoveAll(d))
			if e.mode == modeRoot {
				check(t, unix.Setxattr(o.path("d00"), "user.x", []byte("v"), 0))
			}
		}
		day(0)
		day(1)
		before := len(openFDs(o.pid))
		for i := range 4 {
			day(2 + i)
		}
		// Forgets may come a little later than the removals they belong to.
		if !eventually(3*time.Second, func() bool { return len(openFDs(o.pid)) <= before+40 }) {
			t.Errorf("%d descriptors after two days, %d after six", before, len(openFDs(o.pid)))
		}
		deleted := 0
		for fd := range openFDs(o.pid) {
			// By the link count: a file that was made nameless and linked is shown as deleted too.
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", o.pid, fd), &st) == nil && st.Nlink == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
				deleted++
			}
		}
		if deleted > 20 {
			t.Errorf("%d descriptors of removed files are still open", deleted)
		}
	})
}
