package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// (a) The tutorial: a file in the lower, one in the upper, one in both.
func TestWalkInLowerInUpperInBoth(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file in_lower.txt \"from lower\"\nfile in_both.txt \"from lower\"\nfile sub/in_lower \"low\"")
		build(t, e, o.upper, "file in_upper.txt \"from upper\"\nfile in_both.txt \"from upper\"\nfile sub/in_upper \"up\"")
		o.mount()
		wantTree(t, "the merged tree", o.mnt, `
			file in_lower.txt "from lower"
			file in_upper.txt "from upper"
			file in_both.txt "from upper"
			file sub/in_lower "low"
			file sub/in_upper "up"`)
		write(t, o.path("new_file"), "new")
		check(t, os.Remove(o.path("in_both.txt")))
		check(t, os.Remove(o.path("in_upper.txt")))
		appendTo(t, o.path("in_lower.txt"), " and more")
		check(t, os.Remove(o.path("sub/in_lower")))
		merged := `
			file in_lower.txt "from lower and more"
			file new_file "new"
			file sub/in_upper "up"`
		wantTree(t, "the changed tree", o.mnt, merged)
		o.unmount()
		wantTree(t, "the lower", o.lowers[0], `
			file in_lower.txt "from lower"
			file in_both.txt "from lower"
			file sub/in_lower "low"`)
		wantTree(t, "the upper", o.upper, `
			file in_lower.txt "from lower and more"
			file new_file "new"
			white in_both.txt
			white sub/in_lower
			file sub/in_upper "up"`)
		wantTree(t, "the empty mount point", o.mnt, "")
		o.mount()
		wantTree(t, "the tree after a remount", o.mnt, merged)
	})
}

// (b) Two lowers with a file in both: the upper one of them wins.
func TestWalkTwoLowers(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file foo \"A\"\nfile onlyA \"a\"", "file foo \"B\"\nfile onlyB \"b\"\nfile both/x \"B\"")
		wantTree(t, "merged", o.mnt, "file foo \"A\"\nfile onlyA \"a\"\nfile onlyB \"b\"\nfile both/x \"B\"")
		check(t, os.Remove(o.path("foo")))
		wantAbsent(t, o.path("foo"))
		check(t, os.WriteFile(o.path("onlyB"), []byte("over"), 0o644))
		check(t, os.RemoveAll(o.path("both")))
		o.unmount()
		wantTree(t, "the upper", o.upper, "white foo\nfile onlyB \"over\"\nwhite both")
		wantTree(t, "lower B", o.lowers[1], "file foo \"B\"\nfile onlyB \"b\"\nfile both/x \"B\"")
	})
}

// (c) A root made of bash, ls and the libraries ldd names, in three layers, entered by chroot.
func TestWalkChroot(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir bin", "dir lib", "file etc/motd \"hello\"")
		install := func(root, path string) {
			mkdir(t, filepath.Dir(root+path))
			text, err := os.ReadFile(path)
			check(t, err)
			check(t, os.WriteFile(root+path, text, 0o755))
		}
		for _, program := range []string{"/bin/bash", "/bin/ls"} {
			install(o.lowers[0], program)
			for _, library := range libraries(program) {
				install(o.lowers[1], library)
			}
		}
		o.mount()
		out, err := runCommand("chroot", o.mnt, "/bin/bash", "-c", "ls / && read x </etc/motd; echo got $x; echo new >/etc/new && >/bin/touched")
		if err != nil {
			t.Fatalf("chroot: %v\n%s", err, out)
		}
		for _, want := range []string{"bin\n", "etc\n", "lib\n", "got hello"} {
			if !strings.Contains(out, want) {
				t.Errorf("chroot wrote %q, which lacks %q", out, want)
			}
		}
		o.unmount()
		wantTree(t, "the upper", o.upper, "file etc/new \"new\\n\"\nfile bin/touched \"\"")
	})
}

// libraries are the files that a program loads; a static one has none.
func libraries(program string) (paths []string) {
	out, _ := exec.Command("ldd", program).Output()
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") && word != program+":" {
			paths = append(paths, word)
		}
	}
	return paths
}

// (d) The layer store of container engines: short links, an init layer, relative lowers.
func TestWalkLayerStore(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		store := filepath.Join(e.dir, "overlay")
		ids := []string{strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32), strings.Repeat("c3", 32) + "-init"}
		short := map[string]string{}
		for i, id := range ids {
			name := strings.Repeat(string(rune('A'+i)), 26)
			mkdir(t, filepath.Join(store, id, "diff"), filepath.Join(store, id, "work"), filepath.Join(store, "l"))
			check(t, os.Symlink("../"+id+"/diff", filepath.Join(store, "l", name)))
			write(t, filepath.Join(store, id, "link"), name)
			short[id] = "l/" + name
		}
		build(t, e, filepath.Join(store, ids[0], "diff"), "file etc/base \"base\"\nfile bin/sh \"sh\"\nfile var/cache/x \"x\"")
		build(t, e, filepath.Join(store, ids[1], "diff"), "file etc/app \"app\"\nwhite bin/sh\nopaque var/cache")
		build(t, e, filepath.Join(store, ids[3], "diff"), "file etc/hostname \"\"\nfile etc/resolv.conf \"\"\ndir dev")
		id := ids[2]
		lowers := []string{short[ids[3]], short[ids[1]], short[ids[0]]}
		write(t, filepath.Join(store, id, "lower"), strings.Join(lowers, ":"))

		o := e.overlay(t)
		o.lowers = lowers
		o.upper, o.work, o.mnt = filepath.Join(store, id, "diff"), filepath.Join(store, id, "work"), filepath.Join(store, id, "merged")
		mkdir(t, o.mnt)
		t.Chdir(store)
		o.mount()
		t.Chdir("/")
		merged := `
			file etc/base "base"
			file etc/app "app"
			file etc/hostname ""
			file etc/resolv.conf ""
			dir bin
			dir dev
			dir var/cache`
		wantTree(t, "merged", o.mnt, merged)
		write(t, o.path("touched"), "here")
		wantTree(t, "diff while mounted", o.upper, "file touched \"here\"")
		o.unmount()
		wantTree(t, "diff", o.upper, "file touched \"here\"")
		wantTree(t, "merged after unmount", o.mnt, "")
		wantTree(t, "the base layer", filepath.Join(store, ids[0], "diff"), "file etc/base \"base\"\nfile bin/sh \"sh\"\nfile var/cache/x \"x\"")
		wantTree(t, "the app layer", filepath.Join(store, ids[1], "diff"), "file etc/app \"app\"\nwhite bin/sh\nopaque var/cache")
	})
}
