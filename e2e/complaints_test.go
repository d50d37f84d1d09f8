package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A directory of 10,000 files costs requests in proportion, once; a second look costs none.
func TestLargeDirectoryIsLinear(t *testing.T) {
	eachMode(t, []mode{modeRoot, modeFusermount}, func(t *testing.T, e *env) {
		const n = 10_000
		o := e.overlay(t, "dir d", "dir d")
		for i := range n {
			layer := o.lowers[i%2]
			check(t, os.WriteFile(fmt.Sprintf("%s/d/file%05d", layer, i), nil, 0o644))
		}
		o.mount()
		list := func() {
			entries, err := os.ReadDir(o.path("d"))
			check(t, err)
			equal(t, "entries", len(entries), n)
		}
		needDaemon(t)
		first := o.during(list)
		if m := first["READDIR"] + first["READDIRPLUS"]; m > n/20 || first.total() > n+n/20 {
			t.Errorf("first listing of %d entries: %s", n, first)
		}
		list()
		wantCounts(t, "a further listing", o.during(list), nil, nil)

		created := o.during(func() {
			for i := range n {
				check(t, os.WriteFile(fmt.Sprintf("%s/d/new%05d", o.mnt, i), nil, 0o644))
			}
		})
		if created.total() > 3*n+n/10 {
			t.Errorf("creating %d empty files: %s", n, created)
		}
		removed := o.during(func() { check(t, os.RemoveAll(o.path("d"))) })
		if removed["UNLINK"] != 2*n || removed.total() > 7*n {
			t.Errorf("removing %d files: %s", 2*n, removed)
		}
		wantAbsent(t, o.path("d"))
	})
}

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

// A kill at any moment leaves each file as it was before or as it is after, and the next mount sweeps the rest.
func TestCrashThenRemount(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		content := strings.Repeat("0123456789abcde\n", 8192) // 128 KiB
		var table strings.Builder
		const n = 120
		for i := range n {
			fmt.Fprintf(&table, "file d%d/f%d 0644 %q\n", i%7, i, content)
		}
		r := rand.New(rand.NewPCG(3, 4))
		o := e.overlay(t, table.String())
		for round := range 6 {
			o.mount()
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() { // errors are expected once the daemon is gone
				defer close(done)
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					k := i % n
					p := fmt.Sprintf("%s/d%d/f%d", o.mnt, k%7, k)
					switch i % 4 {
					case 0:
						_ = os.Chmod(p, 0o600)
					case 1:
						_ = os.WriteFile(p+".new", []byte("replaced"), 0o644)
						_ = os.Rename(p+".new", p)
					case 2:
						_ = os.Remove(p)
					case 3:
						_ = os.Mkdir(p+".dir", 0o755)
						_ = os.Rename(p, p+".dir/moved")
					}
				}
			}()
			time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			kill(o.pid, syscall.SIGKILL)
			close(stop)
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("a system call hangs after the death of the daemon")
			}
			o.crash()
			o.mount()
			checkCrashed(t, o, content, n)
			o.unmount()
			if rest := workRest(o.work); len(rest) > 0 {
				t.Errorf("round %d: the work directory still holds %v", round, rest)
			}
		}
		compareTrees(t, "the lower", o.lowers[0], rebuilt(t, e, table.String()), exact)
	})
}

// rebuilt builds a table anew, to compare with.
func rebuilt(t *testing.T, e *env, table string) string {
	dir := filepath.Join(e.dir, "rebuilt")
	mkdir(t, dir)
	build(t, e, dir, table)
	return dir
}

// checkCrashed accepts whole old files, whole replacements, and absence; nothing else.
func checkCrashed(t *testing.T, o *overlay, content string, n int) {
	t.Helper()
	for k := range n {
		p := fmt.Sprintf("%s/d%d/f%d", o.mnt, k%7, k)
		for _, path := range []string{p, p + ".dir/moved"} {
			text, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				continue
			}
			check(t, err)
			// A replacement was written without fsync before its rename: it may be empty, as on a plain file system.
			if s := string(text); s != content && s != "replaced" && s != "" {
				t.Errorf("%s holds %d bytes that were never written: %s", path, len(s), brief(s))
			}
		}
	}
}

// What fsync promised is there after a kill.
func TestSyncedDataSurvivesAKill(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"lower\"")
		for _, name := range []string{"low", "new"} {
			f := open(t, o.path(name), os.O_RDWR|os.O_CREATE|os.O_APPEND)
			_, err := f.WriteString("synced")
			check(t, err)
			check(t, f.Sync())
		}
		closed := open(t, o.path("closed"), os.O_RDWR|os.O_CREATE)
		_, err := closed.WriteString("closed")
		check(t, err)
		check(t, closed.Close()) // close writes back
		o.crash()
		o.mount()
		wantText(t, o.path("low"), "lowersynced")
		wantText(t, o.path("new"), "synced")
		wantText(t, o.path("closed"), "closed")
	})
}

// A killed daemon answers with an error, not with a hang, and its mount can be taken away.
func TestDeadDaemonIsAnError(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		kill(o.pid, syscall.SIGKILL)
		waitGone(o.pid, 5*time.Second)
		_, err := os.ReadDir(o.mnt)
		wantErr(t, "listing", err, syscall.ENOTCONN, syscall.ECONNABORTED)
		o.crash()
		o.mount()
		wantText(t, o.path("f"), "x")
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

// Names that nobody touches are listed exactly once, whatever else happens in the directory meanwhile.
func TestListingIsStable(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table [2]strings.Builder
		for i := range 400 {
			fmt.Fprintf(&table[i%2], "file d/keep%03d \"\"\nfile d/drop%03d \"\"\n", i, i)
		}
		o := e.mounted(t, table[0].String(), table[1].String())
		for round := range 3 {
			f := open(t, o.path("d"), os.O_RDONLY)
			seen := map[string]int{}
			for i := 0; ; i++ {
				entries, err := getdents(f, 300)
				check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					seen[entry.name]++
				}
				if i > 300 {
					continue // so that the listing may end, though it shows what is new
				}
				_ = os.Remove(o.path(fmt.Sprintf("d/drop%03d", (i*3+round)%400)))
				write(t, o.path(fmt.Sprintf("d/new%d-%03d", round, i)), "")
				if i%10 == 0 {
					_ = os.Rename(o.path(fmt.Sprintf("d/new%d-%03d", round, i)), o.path(fmt.Sprintf("d/moved%d-%03d", round, i)))
				}
			}
			for name, n := range seen {
				if n > 1 {
					t.Errorf("round %d: %s was listed %d times", round, name, n)
				}
			}
			for i := range 400 {
				if name := fmt.Sprintf("keep%03d", i); seen[name] != 1 {
					t.Errorf("round %d: %s was listed %d times", round, name, seen[name])
				}
			}
			check(t, f.Close())
			entries, err := os.ReadDir(o.path("d"))
			check(t, err)
			for _, entry := range entries {
				if _, err := os.Lstat(o.path("d/" + entry.Name())); err != nil {
					t.Errorf("listed, but %v", err)
				}
			}
		}
	})
}

// A listing ends though each entry is renamed away and back as it is listed (generic/736 of xfstests).
func TestListingEndsWhileEntriesAreRenamed(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table strings.Builder
		for i := range 500 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.mounted(t, table.String())
		for _, warm := range []bool{false, true} {
			f := open(t, o.path("d"), os.O_RDONLY)
			listed := 0
			for {
				entries, err := getdents(f, 1000)
				check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					if listed++; listed > 5000 {
						t.Fatalf("a listing of 500 names goes on after %d (listed before: %v)", listed, warm)
					}
					if strings.HasPrefix(entry.name, "f") {
						check(t, os.Rename(o.path("d/"+entry.name), o.path("d/TEMP")))
						check(t, os.Rename(o.path("d/TEMP"), o.path("d/"+entry.name)))
					}
				}
			}
			check(t, f.Close())
		}
	})
}

// Offsets stay good for seekdir while the listing is in use, and rewinding shows what is new.
func TestSeekdir(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table strings.Builder
		for i := range 200 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.mounted(t, table.String(), "file d/low \"\"")
		f := open(t, o.path("d"), os.O_RDONLY)
		var all []dirent
		for {
			entries, err := getdents(f, 1000)
			check(t, err)
			if len(entries) == 0 {
				break
			}
			all = append(all, entries...)
		}
		equal(t, "entries", len(all), 203)
		write(t, o.path("d/added"), "")
		check(t, os.Remove(o.path("d/"+all[150].name)))
		for _, i := range []int{100, 3, 180, 50, 149, 202} {
			if all[i].name == all[150].name || i+1 < len(all) && all[i+1].name == all[150].name {
				continue
			}
			_, err := f.Seek(all[i].off, io.SeekStart)
			check(t, err)
			entries, err := getdents(f, 1000)
			check(t, err)
			if i+1 < len(all) {
				if len(entries) == 0 || entries[0].name != all[i+1].name {
					t.Errorf("after seeking behind %s: %v, want %s", all[i].name, entries, all[i+1].name)
				}
			}
		}
		_, err := f.Seek(0, io.SeekStart)
		check(t, err)
		var names []string
		for {
			entries, err := getdents(f, 1000)
			check(t, err)
			if len(entries) == 0 {
				break
			}
			for _, entry := range entries {
				names = append(names, entry.name)
			}
		}
		if !slices.Contains(names, "added") || slices.Contains(names, all[150].name) || len(names) != 203 {
			t.Errorf("after rewinding: %d names, added %v, removed %v", len(names), slices.Contains(names, "added"), slices.Contains(names, all[150].name))
		}
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
		for _, target := range openFDs(o.pid) {
			if strings.HasSuffix(target, " (deleted)") {
				deleted++
			}
		}
		if deleted > 20 {
			t.Errorf("%d descriptors of removed files are still open", deleted)
		}
	})
}
