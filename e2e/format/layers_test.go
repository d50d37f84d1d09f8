package format

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// xattrWhiteoutLayers have whiteouts that are files.
var xattrWhiteoutLayers = []string{`
	xattr . trusted.overlay.opaque x
	dir d
	xattr d trusted.overlay.opaque x
	file d/gone ""
	xattr d/gone trusted.overlay.whiteout ""
	file d/hidden ""
	xattr d/hidden trusted.overlay.whiteout y
	file d/empty ""
	file top "top"`, `
	file d/gone "gone"
	file d/hidden "hidden"
	file d/stays "stays"
	file d/empty "hidden"
	file d/sub/x "x"
	file rm "rm"
	file dir/a "a"
	file dir/b "b"
	file top "hidden"`,
}

// In an upper the kernel does not accept files as whiteouts, so it gets the upper of the program as
// a lower.
var xattrWhiteoutScripts = []string{`
	unlink rm
	unlink d/stays
	rmtree d/sub
	unlink dir/a
	create d/gone 0644 "back"
	unlink top
	mkdir top 0755
	create d/none 0644 ""`, `
	lower
	create rm 0644 "back"
	unlink d/gone
	create d/stays 0600 "again"
	rmtree dir
	create dir 0644 "no dir"`, `
	lower
	unlink dir
	unlink d/empty
	unlink d/none`,
}

// The writer makes a layer of files without data. The reader mounts it above data-only layers.
var dataOnlyScripts = []string{`
	chmod mode 0600
	rename mode far/mode
	chown owner 1000 1001
	rename owner far/owner
	utimes times 1000000500 3
	rename times far/times
	chmod big 0755
	rename big far/big
	setxattr cut user.a 1
	rename cut far/cut
	rmtree dir
	rmtree twice
	unlink attr
	unlink move
	chmod away 0600
	rename away far/away
	unlink hard1
	unlink hard2
	unlink empty
	unlink suid`, `
	data
	read far/mode
	chmod far/owner 0640
	rename far/owner owner
	append far/mode "+"
	pwrite far/big 50000 "here"
	truncate far/cut 3
	link far/times times2`, `
	lower
	append owner "+"
	append times2 "+"
	chmod far/big 0700`,
}

// nestingLayers hold the layers of an overlay inside the mount.
var nestingLayers = []string{`
	dir in0/d
	file in0/d/new "new"
	file in0/w/gone ""
	dir in0/moved
	file in0/f "f"`, `
	file in1/d/hidden "hidden"
	file in1/w/gone "gone"
	file in1/w/stays "stays"
	file in1/was/x "x"
	file in1/f "hidden"`,
}

var nestingScripts = []string{`
	setxattr in0/d trusted.overlay.opaque y
	setxattr in0 trusted.overlay.opaque x
	setxattr in0/w trusted.overlay.opaque x
	setxattr in0/w/gone trusted.overlay.whiteout y
	setxattr in0/moved trusted.overlay.redirect /was
	mknod in0/dev 0000 white = EPERM`, `
	create in0/w/stays 0644 ""
	setxattr in0/w/stays trusted.overlay.whiteout y
	removexattr in0/d trusted.overlay.opaque
	setxattr in0/d trusted.overlay.overlay.deeper z`, `
	removexattr in0/w/gone trusted.overlay.whiteout
	append in0/w/gone "file"`,
}

// flagScripts make objects immutable and append-only, and set flags that the inode itself has.
var flagScripts = []string{`
	chattr f +i
	truncate f 1 = EPERM
	unlink f = EPERM
	chattr d +a
	create d/new 0644 "new"
	unlink d/a = EPERM
	chattr d/a +ai
	chattr tree +i
	create tree/new 0644 "new" = EPERM
	append tree/three "+"
	chattr tree/sub/one +a
	append tree/sub/one "+"
	create own 0644 "x"
	chattr own +iA
	chattr big +S
	append big "+"
	chattr again +i
	chattr again -i
	append again "+"`, `
	unlink f = EPERM
	chattr f -i
	append f "+"
	rename d/a a = EPERM
	chattr d/a -i
	append d/a "+"
	truncate d/a 0 = EPERM
	chattr d -a
	unlink d/new
	chmod tree 0700 = EPERM
	chattr tree -i
	create tree/new 0644 "new"
	link tree/sub/one one = EPERM
	chattr own -A
	unlink own = EPERM
	chattr big -S
	chattr again +a`, `
	chattr own -i
	unlink own
	chattr tree/sub/one -a
	rmtree tree
	unlink d/a = EPERM
	chattr d/a -a
	rmtree d
	append again "+"`,
}

// lookAtFlags returns the inode flags of files and directories, without the flag d (D43).
func lookAtFlags(_ *cell, o *harness.Overlay) (map[string]string, string) {
	lines := map[string]string{}
	err := filepath.WalkDir(o.Point, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.IsDir() || entry.Type().IsRegular()) {
			rel, _ := filepath.Rel(o.Point, path)
			lines["flags of "+rel] = fmt.Sprintf("flags of %s: %s", rel, strings.ReplaceAll(harness.Lsattr(path), "d", ""))
		}
		return err
	})
	if err != nil {
		return nil, err.Error()
	}
	return lines, ""
}

// lookAtIndex is indexKinds for the table of formats.
func lookAtIndex(_ *cell, o *harness.Overlay) (map[string]string, string) {
	return harness.IndexKinds(o)
}

// withoutLinkCounts removes the link counts of the objects in the index.
func withoutLinkCounts(o *harness.Overlay) error {
	entries, err := os.ReadDir(filepath.Join(o.Work, "index"))
	for _, entry := range entries {
		if e := unix.Lremovexattr(filepath.Join(o.Work, "index", entry.Name()), "trusted.overlay.nlink"); e != unix.ENODATA {
			err = errors.Join(err, e)
		}
	}
	return err
}

// beside joins tables or scripts. The names of each get a folder of its own: 0, 1 and so on.
func beside(lists ...[]string) (all []string) {
	for i, list := range lists {
		for k, table := range list {
			var b strings.Builder
			for line := range strings.SplitSeq(table, "\n") {
				words, err := testkit.Words(line)
				if err != nil || len(words) == 0 {
					continue
				}
				for at, word := range words {
					if at == 1 || at == 2 && (words[0] == "link" || strings.Contains(scriptWords[words[0]], "path2")) {
						word = filepath.Join(strconv.Itoa(i), word)
					}
					if at > 0 && word != "=" && words[at-1] != "=" {
						word = strconv.Quote(word)
					}
					b.WriteString(word + " ")
				}
				b.WriteString("\n")
			}
			if k == len(all) {
				all = append(all, "")
			}
			all[k] += b.String()
		}
	}
	return all
}

// lookInside mounts the kernel's overlayfs on layers that lie in the mount.
func lookInside(c *cell, o *harness.Overlay) (map[string]string, string) {
	in := &harness.Overlay{T: c.t, Env: c.e, Kernel: true, Lowers: []string{o.Path("in0"), o.Path("in1")},
		Point:       filepath.Join(c.e.Dir, "inside"),
		KernelFlags: unix.MS_NOATIME}
	harness.Mkdir(c.t, in.Point)
	in.KernelOpts = "redirect_dir=follow,index=off,metacopy=off,xino=off"
	if err := in.MountKernel(); err != nil {
		return nil, fmt.Sprintf("inside: %v", err)
	}
	defer in.Unmount()
	lines, err := harness.Snapshot(in.Point, harness.FullView)
	if err != nil {
		return nil, fmt.Sprintf("inside: %v", err)
	}
	shown := map[string]string{}
	for rel, line := range lines {
		shown["inside/"+rel] = "inside: " + line
	}
	return shown, ""
}
