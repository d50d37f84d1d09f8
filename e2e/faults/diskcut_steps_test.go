package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cutStep is one change of a tree, or the fsync of an object.
type cutStep struct {
	what string
	do   func(root string) error
	// writes is the file whose data the step writes without fsync; empty: none.
	writes string
	// syncs is the object or directory that the step syncs, which the step before it has changed;
	// empty: none.
	syncs string
}

func fsyncOf(path string) cutStep {
	return cutStep{what: "fsync " + path, syncs: path, do: func(root string) error {
		f, err := os.Open(filepath.Join(root, path))
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	}}
}

// writeStep opens a file with flags, and writes a text.
func writeStep(what, path, text string, flags int) cutStep {
	return cutStep{what: what + " " + path, writes: path, do: func(root string) error {
		f, err := os.OpenFile(filepath.Join(root, path), os.O_WRONLY|flags, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}}
}

func appendTo(path, text string) cutStep { return writeStep("append to", path, text, os.O_APPEND) }
func createWith(path, text string) cutStep {
	return writeStep("create", path, text, os.O_CREATE|os.O_EXCL)
}

// overwrite writes to the beginning of a file of a lower. Of a file that is in the upper for
// longer, a cut could leave new data in a tree that is otherwise older.
func overwrite(path, text string) cutStep { return writeStep("overwrite", path, text, 0) }

// onPath is a step that is one call with a path.
func onPath(what, path string, f func(path string) error) cutStep {
	return cutStep{what: what + " " + path, do: func(root string) error { return f(filepath.Join(root, path)) }}
}

// onPaths is a step that is one call with two paths.
func onPaths(what, from, to string, f func(from, to string) error) cutStep {
	return cutStep{what: what + " " + from + " " + to, do: func(root string) error {
		return f(filepath.Join(root, from), filepath.Join(root, to))
	}}
}

func chmod(path string, mode uint32) cutStep {
	return onPath("chmod", path, func(p string) error { return unix.Chmod(p, mode) })
}
func chown(path string, id int) cutStep {
	return onPath("chown", path, func(p string) error { return os.Lchown(p, id, id) })
}
func setNote(path, note string) cutStep {
	return onPath("setxattr", path, func(p string) error { return unix.Setxattr(p, "user.note", []byte(note), 0) })
}
func truncateTo(path string, size int64) cutStep {
	return onPath("truncate", path, func(p string) error { return os.Truncate(p, size) })
}

// truncateCopy truncates a file that is in the upper. ext4 may write the block with the new end,
// and zeroes behind it, before the new size.
func truncateCopy(path string, size int64) cutStep {
	s := truncateTo(path, size)
	s.writes = path
	return s
}
func mkdir(path string) cutStep {
	return onPath("mkdir", path, func(p string) error { return os.Mkdir(p, 0o755) })
}
func mkfifo(path string) cutStep {
	return onPath("mkfifo", path, func(p string) error { return unix.Mkfifo(p, 0o644) })
}
func symlink(path string) cutStep {
	return onPath("symlink", path, func(p string) error { return os.Symlink("target", p) })
}
func unlink(path string) cutStep { return onPath("unlink", path, unix.Unlink) }
func rmdir(path string) cutStep  { return onPath("rmdir", path, unix.Rmdir) }
func link(from, to string) cutStep {
	return onPaths("link", from, to, os.Link)
}
func rename(from, to string) cutStep { return onPaths("rename", from, to, unix.Rename) }
func exchange(from, to string) cutStep {
	return onPaths("exchange", from, to, func(from, to string) error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	})
}

// Numbers of the lower of cutTree.
const (
	cutTreeDirs  = 6
	cutTreeFiles = 6 // in each directory
	cutTreeLinks = 4 // files with three names each
)

// treeFile is the path of a file of cutTree.
func treeFile(dir, file int) string { return fmt.Sprintf("d%d/f%d", dir, file) }

// linkName is one of the names "a", "b", "c" of a linked file of cutTree.
func linkName(name string, file int) string { return fmt.Sprintf("links/%s%d", name, file) }

// cutText is a text of up to some blocks.
func cutText(r *rand.Rand) string {
	size := 1 + r.IntN(100)
	if r.IntN(3) == 0 {
		size = 1 + r.IntN(40_000)
	}
	return cutTextOf(r, size)
}

func cutTextOf(r *rand.Rand, size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('!' + r.IntN('~'-'!'))
	}
	return string(b)
}

// cutTree is the table of the lower: directories with files, and files with several names.
func cutTree(r *rand.Rand) string {
	var b strings.Builder
	for d := range cutTreeDirs {
		fmt.Fprintf(&b, "dir d%d %o\nxattr d%d user.note dir%d\nown d%d 5 %d\n", d, 0o750+d%8, d, d, d, d)
		for f := range cutTreeFiles {
			path := treeFile(d, f)
			fmt.Fprintf(&b, "file %s %q\n", path, cutText(r))
			if f%2 == 0 {
				fmt.Fprintf(&b, "xattr %s user.note %s\nown %s %d %d\n", path, strings.Repeat("n", 1+r.IntN(300)), path, 1000+f, d)
			}
		}
		fmt.Fprintf(&b, "symlink d%d/link f1\nfifo d%d/sub/fifo\n", d, d)
	}
	for i := range cutTreeLinks {
		fmt.Fprintf(&b, "file %s %q\n", linkName("a", i), cutText(r))
		fmt.Fprintf(&b, "link %s %s\nlink %s %s\n", linkName("b", i), linkName("a", i), linkName("c", i), linkName("a", i))
	}
	return b.String()
}

// copyUpSteps copy each file up by another change.
func copyUpSteps(r *rand.Rand) (steps []cutStep) {
	for d := range cutTreeDirs {
		for f := range cutTreeFiles {
			path := treeFile(d, f)
			change := r.IntN(8)
			switch change {
			case 0, 1:
				steps = append(steps, appendTo(path, cutText(r)))
			case 2:
				steps = append(steps, overwrite(path, cutText(r)))
			case 3:
				steps = append(steps, chmod(path, 0o4711))
			case 4:
				steps = append(steps, chown(path, 77))
			case 5:
				steps = append(steps, setNote(path, "new"))
			case 6:
				steps = append(steps, truncateTo(path, int64(r.IntN(100))))
			case 7:
				steps = append(steps, truncateTo(path, 0), appendTo(path, cutText(r)))
			}
			if r.IntN(2) == 0 {
				steps = append(steps, fsyncOf(path))
			}
		}
	}
	return steps
}

// createSteps make new objects of each kind, in directories of the lower and in new ones.
func createSteps(r *rand.Rand) (steps []cutStep) {
	for i := range 14 {
		dir := fmt.Sprint("d", i%cutTreeDirs)
		if i%3 == 0 {
			dir = fmt.Sprint(dir, "/new", i)
			steps = append(steps, mkdir(dir))
			if r.IntN(2) == 0 {
				steps = append(steps, fsyncOf(filepath.Dir(dir)))
			}
		}
		name := func(kind string) string { return fmt.Sprint(dir, "/", kind, i) }
		file := name("file")
		steps = append(steps, createWith(file, cutText(r)))
		if r.IntN(3) > 0 {
			steps = append(steps, fsyncOf(file))
		}
		steps = append(steps, symlink(name("symlink")), setNote(dir, fmt.Sprint("with objects of step ", i)), fsyncOf(dir),
			link(file, name("hard")), mkfifo(name("fifo")), chmod(file, 0o600), chown(name("symlink"), 3))
		if r.IntN(2) == 0 {
			steps = append(steps, fsyncOf(dir))
		}
	}
	return steps
}

// renameSteps replace files, as editors and package managers do, and exchange them.
func renameSteps(r *rand.Rand) (steps []cutStep) {
	sync := func(dir string) {
		if r.IntN(2) == 0 {
			steps = append(steps, fsyncOf(dir))
		}
	}
	for d := range cutTreeDirs {
		dir := fmt.Sprint("d", d)
		next := fmt.Sprint("d", (d+1)%cutTreeDirs)
		for f := range 2 {
			temporary := fmt.Sprint(dir, "/temporary", f)
			steps = append(steps, createWith(temporary, cutText(r)), fsyncOf(temporary), rename(temporary, treeFile(d, f)))
			sync(dir)
		}
		steps = append(steps,
			rename(treeFile(d, 2), treeFile(d, 3)), // both of the lower
			fsyncOf(dir),
			rename(treeFile(d, 4), next+"/moved"), // to a new name
			exchange(treeFile(d, 1), treeFile(d, 5)))
		sync(dir)
		steps = append(steps,
			rename(treeFile(d, 1), treeFile(d, 4)), // to a whiteout
			createWith(dir+"/unsynced", cutText(r)),
			rename(dir+"/unsynced", dir+"/link"))
		sync(dir)
	}
	return steps
}

// removeSteps remove names of the lower and of the upper, and give them to other objects.
func removeSteps(r *rand.Rand) (steps []cutStep) {
	for d := range cutTreeDirs {
		dir := fmt.Sprint("d", d)
		sync := func(dir string) {
			if r.IntN(2) == 0 {
				steps = append(steps, fsyncOf(dir))
			}
		}
		if d%2 == 0 { // one name after the other
			steps = append(steps, unlink(treeFile(d, 0)), fsyncOf(dir), createWith(treeFile(d, 0), cutText(r)),
				fsyncOf(treeFile(d, 0)), unlink(treeFile(d, 0)), mkdir(treeFile(d, 0)), createWith(treeFile(d, 0)+"/in", "in"),
				unlink(treeFile(d, 1)), symlink(treeFile(d, 1)))
			sync(dir)
			steps = append(steps, unlink(dir+"/sub/fifo"), rmdir(dir+"/sub"), fsyncOf(dir), createWith(dir+"/sub", "no directory"))
			sync(dir)
			continue
		}
		for f := range cutTreeFiles {
			steps = append(steps, unlink(treeFile(d, f)))
		}
		sync(dir)
		steps = append(steps, unlink(dir+"/link"), unlink(dir+"/sub/fifo"), rmdir(dir+"/sub"), rmdir(dir))
		sync(".")
		steps = append(steps, mkdir(dir)) // opaque
		sync(".")
		steps = append(steps, createWith(treeFile(d, 3), cutText(r)), fsyncOf(treeFile(d, 3)), mkdir(dir+"/sub"))
		sync(dir)
		if d%3 == 0 {
			steps = append(steps, unlink(treeFile(d, 3)), rmdir(dir+"/sub"), rmdir(dir), fsyncOf("."))
		}
	}
	return steps
}

// redirectSteps rename directories of the lower.
func redirectSteps(r *rand.Rand) []cutStep {
	return []cutStep{
		rename("d0", "renamed"), fsyncOf("."),
		rename("renamed/f1", "renamed/g1"), appendTo("renamed/f2", cutText(r)), fsyncOf("renamed/f2"),
		rename("d1", "renamed/in"), fsyncOf("renamed"),
		rename("renamed/in/sub", "sub"), createWith("sub/new", cutText(r)), fsyncOf("sub/new"),
		rename("d2", "d0"), fsyncOf("."), // over a whiteout
		unlink("d0/f0"), chmod("d0/f1", 0o600), fsyncOf("d0"),
		mkdir("d2"), rename("renamed/in", "d2/back"), fsyncOf("d2"),
		exchange("d3", "d4"), fsyncOf("."),
		rename("d3/f0", "d4/f0"), setNote("d4", "exchanged"), fsyncOf("d4"),
		rename("renamed", "d1"), rename("d1/sub", "d1/f3sub"), fsyncOf("d1"),
		rename("d5", "deep"), rename("deep", "deeper"), fsyncOf("."),
		rename("deeper/sub", "d5"), appendTo("deeper/f4", cutText(r)), rename("deeper", "d5/deep"), fsyncOf("d5"),
		rename("d2/back", "d3/again"), fsyncOf("d3"), rmdir("d2"), fsyncOf("."),
	}
}

// indexSteps change files with several names.
func indexSteps(r *rand.Rand) (steps []cutStep) {
	for i := range cutTreeLinks {
		a, b, c := linkName("a", i), linkName("b", i), linkName("c", i)
		steps = append(steps, [][]cutStep{
			{appendTo(a, cutText(r)), fsyncOf(a), chmod(b, 0o600), fsyncOf(b), unlink(c), fsyncOf("links")},
			{unlink(a), fsyncOf("links"), overwrite(b, cutText(r)), fsyncOf(b), link(b, linkName("new", i)), fsyncOf("links")},
			{link(c, "d0/linked"), fsyncOf("d0"), setNote(b, "noted"), fsyncOf(b), truncateCopy(a, 3), fsyncOf(a)},
			{rename(b, "d1/moved"), fsyncOf("d1"), chown(a, 9), fsyncOf(a), unlink(c), unlink("d1/moved"), fsyncOf("d1")},
		}[i]...)
		steps = append(steps, createWith(linkName("replacing", i), cutText(r)), rename(linkName("replacing", i), linkName("c", (i+1)%3)),
			fsyncOf("links"), appendTo(treeFile(i, 1), cutText(r)), link(treeFile(i, 1), treeFile(i, 9)), fsyncOf(treeFile(i, 1)))
	}
	return steps
}

// metacopySteps copy files up without their data, and then with it.
func metacopySteps(r *rand.Rand) (steps []cutStep) {
	for d := range cutTreeDirs {
		dir := fmt.Sprint("d", d)
		for f := range cutTreeFiles {
			path := treeFile(d, f)
			steps = append(steps, []cutStep{chmod(path, 0o640), chown(path, 12), setNote(path, "meta")}[r.IntN(3)])
			if r.IntN(2) == 0 {
				steps = append(steps, fsyncOf(path))
			}
			switch f {
			case 0:
				steps = append(steps, appendTo(path, cutText(r)), fsyncOf(path))
			case 1:
				steps = append(steps, overwrite(path, cutText(r)))
			case 2:
				steps = append(steps, rename(path, dir+"/moved"), fsyncOf(dir), appendTo(dir+"/moved", cutText(r)))
			case 3:
				steps = append(steps, link(path, dir+"/linked"), fsyncOf(dir))
			case 4:
				steps = append(steps, truncateTo(path, 1), fsyncOf(path))
			case 5:
				steps = append(steps, rename(path, treeFile((d+1)%cutTreeDirs, 7)), fsyncOf(fmt.Sprint("d", (d+1)%cutTreeDirs)))
			}
		}
	}
	return steps
}
