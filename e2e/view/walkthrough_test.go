package view

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tutorial: a file in the lower, one in the upper, one in both.
func TestWalkInLowerInUpperInBoth(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file in_lower.txt \"from lower\"\nfile in_both.txt \"from lower\"\nfile sub/in_lower \"low\"")
		harness.Build(t, e, o.Upper, "file in_upper.txt \"from upper\"\nfile in_both.txt \"from upper\"\nfile sub/in_upper \"up\"")
		o.Mount()
		harness.WantTree(t, "the merged tree", o.Point, `
			file in_lower.txt "from lower"
			file in_upper.txt "from upper"
			file in_both.txt "from upper"
			file sub/in_lower "low"
			file sub/in_upper "up"`)
		harness.Write(t, o.Path("new_file"), "new")
		harness.Check(t, os.Remove(o.Path("in_both.txt")))
		harness.Check(t, os.Remove(o.Path("in_upper.txt")))
		harness.AppendTo(t, o.Path("in_lower.txt"), " and more")
		harness.Check(t, os.Remove(o.Path("sub/in_lower")))
		merged := `
			file in_lower.txt "from lower and more"
			file new_file "new"
			file sub/in_upper "up"`
		harness.WantTree(t, "the changed tree", o.Point, merged)
		o.Unmount()
		harness.WantTree(t, "the lower", o.Lowers[0], `
			file in_lower.txt "from lower"
			file in_both.txt "from lower"
			file sub/in_lower "low"`)
		harness.WantTree(t, "the upper", o.Upper, `
			file in_lower.txt "from lower and more"
			file new_file "new"
			white in_both.txt
			white sub/in_lower
			file sub/in_upper "up"`)
		harness.WantTree(t, "the empty mount point", o.Point, "")
		o.Mount()
		harness.WantTree(t, "the tree after a remount", o.Point, merged)
	})
}

// Two lowers with a file in both: the mount shows that of the upper one of them.
func TestWalkTwoLowers(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file foo \"A\"\nfile onlyA \"a\"", "file foo \"B\"\nfile onlyB \"b\"\nfile both/x \"B\"")
		harness.WantTree(t, "merged", o.Point, "file foo \"A\"\nfile onlyA \"a\"\nfile onlyB \"b\"\nfile both/x \"B\"")
		harness.Check(t, os.Remove(o.Path("foo")))
		harness.WantAbsent(t, o.Path("foo"))
		harness.Check(t, os.WriteFile(o.Path("onlyB"), []byte("over"), 0o644))
		harness.Check(t, os.RemoveAll(o.Path("both")))
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "white foo\nfile onlyB \"over\"\nwhite both")
		harness.WantTree(t, "lower B", o.Lowers[1], "file foo \"B\"\nfile onlyB \"b\"\nfile both/x \"B\"")
	})
}

// A root of bash, ls and their libraries, in three layers, entered by chroot.
func TestWalkChroot(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir bin", "dir lib", "file etc/motd \"hello\"")
		install := func(root, path string) {
			harness.Mkdir(t, filepath.Dir(root+path))
			text, err := os.ReadFile(path)
			harness.Check(t, err)
			harness.Check(t, os.WriteFile(root+path, text, 0o755))
		}
		for _, program := range []string{"/bin/bash", "/bin/ls"} {
			install(o.Lowers[0], program)
			for _, library := range libraries(program) {
				install(o.Lowers[1], library)
			}
		}
		o.Mount()
		out, err := harness.Run("chroot", o.Point, "/bin/bash", "-c",
			"ls / && read x </etc/motd; echo got $x; echo new >/etc/new && >/bin/touched")
		if err != nil {
			t.Fatalf("chroot: %v\n%s", err, out)
		}
		for _, want := range []string{"bin\n", "etc\n", "lib\n", "got hello"} {
			if !strings.Contains(out, want) {
				t.Errorf("chroot wrote %q, which lacks %q", out, want)
			}
		}
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "file etc/new \"new\\n\"\nfile bin/touched \"\"")
	})
}

// libraries are the libraries that a program loads. A static program has none.
func libraries(program string) (paths []string) {
	out, _ := exec.Command("ldd", program).Output()
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") && word != program+":" {
			paths = append(paths, word)
		}
	}
	return paths
}

// The layer store of container engines: short links, an init layer, relative lowers.
func TestWalkLayerStore(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		store := filepath.Join(e.Dir, "overlay")
		ids := []string{strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32),
			strings.Repeat("c3", 32) + "-init"}
		short := map[string]string{}
		for i, id := range ids {
			name := strings.Repeat(string(rune('A'+i)), 26)
			harness.Mkdir(t, filepath.Join(store, id, "diff"), filepath.Join(store, id, "work"), filepath.Join(store, "l"))
			harness.Check(t, os.Symlink("../"+id+"/diff", filepath.Join(store, "l", name)))
			harness.Write(t, filepath.Join(store, id, "link"), name)
			short[id] = "l/" + name
		}
		harness.Build(t, e, filepath.Join(store, ids[0], "diff"),
			"file etc/base \"base\"\nfile bin/sh \"sh\"\nfile var/cache/x \"x\"")
		harness.Build(t, e, filepath.Join(store, ids[1], "diff"), "file etc/app \"app\"\nwhite bin/sh\nopaque var/cache")
		harness.Build(t, e, filepath.Join(store, ids[3], "diff"),
			"file etc/hostname \"\"\nfile etc/resolv.conf \"\"\ndir dev")
		id := ids[2]
		lowers := []string{short[ids[3]], short[ids[1]], short[ids[0]]}
		harness.Write(t, filepath.Join(store, id, "lower"), strings.Join(lowers, ":"))

		o := e.Overlay(t)
		o.Lowers = lowers
		o.Upper, o.Work, o.Point = filepath.Join(store, id, "diff"), filepath.Join(store, id, "work"),
			filepath.Join(store, id, "merged")
		harness.Mkdir(t, o.Point)
		t.Chdir(store)
		o.Mount()
		t.Chdir("/")
		merged := `
			file etc/base "base"
			file etc/app "app"
			file etc/hostname ""
			file etc/resolv.conf ""
			dir bin
			dir dev
			dir var/cache`
		harness.WantTree(t, "merged", o.Point, merged)
		harness.Write(t, o.Path("touched"), "here")
		harness.WantTree(t, "diff while mounted", o.Upper, "file touched \"here\"")
		o.Unmount()
		harness.WantTree(t, "diff", o.Upper, "file touched \"here\"")
		harness.WantTree(t, "merged after unmount", o.Point, "")
		harness.WantTree(t, "the base layer", filepath.Join(store, ids[0], "diff"),
			"file etc/base \"base\"\nfile bin/sh \"sh\"\nfile var/cache/x \"x\"")
		harness.WantTree(t, "the app layer", filepath.Join(store, ids[1], "diff"),
			"file etc/app \"app\"\nwhite bin/sh\nopaque var/cache")
	})
}
