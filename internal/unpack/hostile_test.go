package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// Entries that are refused. Nothing is left, and nothing outside of the layer has changed.
func TestRefusedEntries(t *testing.T) {
	outside := t.TempDir()
	testkit.Build(t, outside, "file secret 0600 \"s\"\ndir d")
	before := testkit.Snapshot(t, outside)
	long := strings.Repeat("n", 256)
	for _, tt := range []struct {
		name    string
		want    string
		objects []object
	}{
		{"parent", `component ".."`, []object{file("../out", "x")}},
		{"parent in the middle", `component ".."`, []object{dir("a"), file("a/../../out", "x")}},
		{"parent at the end", `component ".."`, []object{dir("a"), dir("a/..")}},
		{"absolute with parents", `component ".."`, []object{file("/../out", "x")}},
		{"hard link outside", `component ".."`, []object{hardlink("l", "../../"+outside+"/secret")}},
		{"hard link to an absolute path", "no such file", []object{hardlink("l", outside+"/secret")}},
		{"hard link through a symbolic link", "no such file", []object{symlink("s", outside), hardlink("l", "s/secret")}},
		{"hard link to itself", "no such file", []object{file("f", "x"), hardlink("f", "f")}},
		{"hard link to a later file", "no such file", []object{hardlink("l", "f"), file("f", "x")}},
		{"hard link to a directory", "not permitted", []object{dir("d"), hardlink("l", "d")}},
		{"hard link to the root", "not permitted", []object{hardlink("l", "/")}},
		{"whiteout of nothing", "hides nothing", []object{marker(".wh.")}},
		{"whiteout of dot", "hides nothing", []object{marker("d/.wh..")}},
		{"whiteout of dots", "hides nothing", []object{marker("d/.wh...")}},
		{"whiteout outside", `component ".."`, []object{marker("../.wh.secret")}},
		{"opaque outside", `component ".."`, []object{marker("d/../../.wh..wh..opq")}},
		{"a path through a whiteout", "through the name of a whiteout", []object{file(".wh.d/f", "x")}},
		{"a path through an opaque marker", "", []object{file(".wh..wh..opq/f", "x")}},
		{"a device that is a whiteout", "would become a whiteout", []object{device("w", tar.TypeChar, 0, 0)}},
		{"a device with a large number", "there is no device", []object{{name: "w", typ: tar.TypeChar,
			set: func(h *tar.Header) { h.Format, h.Devmajor = tar.FormatGNU, 1<<40 }}}},
		{"a long name", "name too long", []object{file(long, "x")}},
		{"a long name of a directory", "name too long", []object{file(long+"/f", "x")}},
		{"a long name in a whiteout", "name too long", []object{marker(".wh." + long)}},
		{"owner by an attribute", "overlay's own", []object{file("f", "x").with("user.containers.override_stat", "0:0:4755")}},
		{"owner by an older attribute", "overlay's own", []object{file("f", "x").with("user.fuseoverlayfs.override_stat", "0:0:4755")}},
		{"owner by a security attribute", "overlay's own", []object{file("f", "x").with("security.fuseoverlayfs.override_stat", "0:0:4755")}},
		{"opaque by an attribute", "overlay's own", []object{dir("d").with("user.fuseoverlayfs.opaque", "y")}},
		{"a long private attribute", "overlay's own", []object{file("f", "x").with("user.overlay."+strings.Repeat("x", 240), "y")}},
		{"a root that is no directory", "root directory", []object{symlink("/", outside)}},
		{"a loop of symbolic links", "symbolic links", []object{symlink("a", "b"), symlink("b", "a"), file("a/f", "x")}},
		{"an unknown type", "typeflag", []object{{name: "x", typ: 'Z'}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder, _, err := apply(t, archive(t, append([]object{dir("first")}, tt.objects...)...), Options{})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				testkit.Want(t, "the rest", filepath.Join(folder, "layer"), "dir first")
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "entry ") && !strings.Contains(err.Error(), "hide") {
				t.Errorf("the error is %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), ".apply-") {
				t.Errorf("the error %v names the staging directory", err)
			}
			wantNames(t, "after the error", folder)
		})
	}
	if d := testkit.Diff(before, testkit.Snapshot(t, outside)); d != "" {
		t.Errorf("outside of the layers:\n%s", d)
	}
}

// Paths that lead outside on the machine lead inside in the layer.
func TestConfinedPaths(t *testing.T) {
	outside := t.TempDir()
	testkit.Build(t, outside, "file f 0600 \"old\"\ndir d")
	before := testkit.Snapshot(t, outside)
	inside := strings.TrimPrefix(outside, "/")
	for _, tt := range []struct {
		name    string
		want    string
		objects []object
	}{
		{"absolute name", "file etc/x 0644 \"new\"", []object{file("/etc/x", "new")}},
		{"empty names", "file a/x 0644 \"new\"", []object{file("a//./x", "new")}},
		{"file through a symbolic link", fmt.Sprintf("symlink s %s\nfile %s/f 0644 \"new\"", outside, inside),
			[]object{symlink("s", outside), file("s/f", "new")}},
		{"file through dots in a symbolic link", "symlink s ../../../..\nfile f 0644 \"new\"",
			[]object{symlink("s", "../../../.."), file("s/f", "new")}},
		{"file over a symbolic link", "file s 0644 \"new\"", []object{symlink("s", outside+"/f"), file("s", "new")}},
		{"directory over a symbolic link", "file s/f 0644 \"new\"", []object{symlink("s", outside), dir("s"), file("s/f", "new")}},
		{"whiteout through a symbolic link", fmt.Sprintf("symlink s %s\nwhite %s/f", outside, inside),
			[]object{symlink("s", outside), marker("s/.wh.f")}},
		{"opaque through a symbolic link", fmt.Sprintf("symlink s %s\nopaque %s/d", outside, inside),
			[]object{symlink("s", outside), marker("s/d/.wh..wh..opq")}},
		{"hard link to a symbolic link", fmt.Sprintf("symlink s %s/f\nsymlink l %s/f", outside, outside),
			[]object{symlink("s", outside+"/f"), hardlink("l", "s")}},
		{"file over a hard link to a symbolic link", fmt.Sprintf("symlink s %s/f\nfile l 0644 \"new\"", outside),
			[]object{symlink("s", outside+"/f"), hardlink("l", "s"), file("l", "new")}},
		{"attributes of a symbolic link", fmt.Sprintf("symlink s %s", outside),
			[]object{symlink("s", outside).with("security.selinux", "x")}},
		{"newline and control characters", `file "a\nb\x1b" 0644 "new"`, []object{file("a\nb\x1b", "new")}},
		{"names that are not UTF-8", `file "\xff\xfe" 0644 "new"`, []object{{name: "\xff\xfe", typ: tar.TypeReg, mode: 0o644, data: "new",
			set: func(h *tar.Header) { h.Format = tar.FormatGNU }}}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantLayer(t, tt.name, tt.want, tt.objects...) })
	}
	if d := testkit.Diff(before, testkit.Snapshot(t, outside)); d != "" {
		t.Errorf("outside of the layers:\n%s", d)
	}
}

// The last entry of a name counts, whatever the types.
func TestRepeatedNames(t *testing.T) {
	wantLayer(t, "file, directory, file", "file f 0644 \"3\"", file("f", "1"), dir("f"), file("f/in", "2"), file("f", "3"))
	wantLayer(t, "directory, file, directory", "file d/in 0644 \"3\"", dir("d"), file("d/old", "1"), file("d", "2"), dir("d"), file("d/in", "3"))
	wantLayer(t, "twice a directory", "file d/a 0644 \"1\"\nfile d/b 0644 \"2\"", dir("d"), file("d/a", "1"), dir("d"), file("d/b", "2"))
	wantLayer(t, "one of two links again", "file a 0644 \"1\"\nfile b 0644 \"2\"", file("a", "1"), hardlink("b", "a"), file("b", "2"))
	wantLayer(t, "many times", "file f 0644 \"9\"", func() (all []object) {
		for i := range 10 {
			all = append(all, file("f", fmt.Sprint(i)), marker(".wh.f"))
		}
		return all
	}()...)
	wantLayer(t, "whiteouts in what becomes a file", "file d 0644 \"x\"", dir("d"), marker("d/.wh.a"), marker("d/.wh..wh..opq"), file("d", "x"))
	wantLayer(t, "whiteouts in what becomes a symbolic link", "symlink d e\ndir e", dir("e"), dir("d"), marker("d/.wh.a"), symlink("d", "e"))
}

// No attribute of an archive is a mark of the overlay. The escaped names are those under which the
// mount stores what a process sets.
func TestForgedMarks(t *testing.T) {
	for _, ns := range []string{"trusted", "user"} {
		for _, name := range []string{"opaque", "redirect", "metacopy", "whiteout", "origin", "protattr", "overlay.opaque"} {
			folder := wantLayer(t, ns+name, fmt.Sprintf("dir d\nxattr d %s.overlay.overlay.%s y", ns, name), dir("d").with(ns+".overlay."+name, "y"))
			var value [8]byte
			if name == "overlay.opaque" {
				continue
			}
			if _, err := unix.Lgetxattr(folder+"/layer/d", ns+".overlay."+name, value[:]); err != unix.ENODATA {
				t.Errorf("%s.overlay.%s is set: %v", ns, name, err)
			}
		}
	}
	wantLayer(t, "on the root", "dir d", dir("").with("trusted.overlay.opaque", "y"), dir("d"))
}

// Archives that are damaged anywhere, or lie about their size.
func TestDamagedArchives(t *testing.T) {
	whole := archive(t, dir("d"), file("d/f", strings.Repeat("data", 1000)), marker("d/.wh.x"))
	negative := bytes.Clone(archive(t, file("f", "")))
	copy(negative[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") // -1 in base 256
	checksum(negative)
	nul := bytes.Replace(archive(t, file(strings.Repeat("n", 120), "")), []byte("nnn\n"), []byte("n\x00n\n"), 1)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(whole)
	must(t, err)
	must(t, w.Close())
	crc := bytes.Clone(packed.Bytes())
	crc[len(crc)-6] ^= 1
	records := append(extended("SCHILY.xattr.user.x", strings.Repeat("x", 2<<20)), archive(t, file("f", "x"))...)
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("no archive at all, but a text of some length that fills no block"),
		"in a header": whole[:700], "without its end": whole[:len(whole)-1024], "at half its end": whole[:len(whole)-512],
		"in the data": whole[:2000], "negative size": negative, "NUL in a path": nul,
		"large PAX records": records, "compressed, cut": packed.Bytes()[:packed.Len()/2], "compressed, wrong sum": crc,
		"compressed, no header": packed.Bytes()[:3], "zstd, cut": {0x28, 0xb5, 0x2f, 0xfd, 0},
	} {
		folder, _, err := apply(t, data, Options{})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		wantNames(t, name, folder)
	}
}

// checksum corrects the checksum of the first header.
func checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, b := range block[:512] {
		sum += int(b)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// A sparse file may claim any size: it is refused before a byte is written.
func TestSparseBomb(t *testing.T) {
	// GNU.sparse 1.0: the map in front of the data has no segments, so the file is one hole.
	raw := archive(t, object{name: "GNUSparseFile.0/bomb", typ: tar.TypeReg, mode: 0o644, data: "0\n" + strings.Repeat("\x00", 510),
		set: func(h *tar.Header) { h.Format, h.ModTime = tar.FormatUSTAR, time.Unix(0, 0) }})
	records := extended("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "bomb",
		"GNU.sparse.realsize", "4611686018427387904")
	folder, _, err := apply(t, append(records, raw...), Options{})
	if err == nil || !strings.Contains(err.Error(), "4611686018427387904 bytes") {
		t.Errorf("the error is %v", err)
	}
	wantNames(t, "after the error", folder)
}

// extended returns a header with PAX records for the next entry. Unlike archive/tar it writes any.
func extended(pairs ...string) []byte {
	var records strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		rest := " " + pairs[i] + "=" + pairs[i+1] + "\n"
		n := len(rest) + 1
		for len(fmt.Sprint(n))+len(rest) != n {
			n++
		}
		fmt.Fprint(&records, n, rest)
	}
	size := records.Len()
	block := make([]byte, 512+(size+511)/512*512)
	copy(block, "PaxHeaders/x")
	copy(block[100:], "0000644\x00")
	copy(block[124:], fmt.Sprintf("%011o\x00", size))
	block[156] = tar.TypeXHeader
	copy(block[257:], "ustar\x0000")
	checksum(block)
	copy(block[512:], records.String())
	return block
}

// Archives with random bytes in random places are unpacked or refused: the folder around the layer
// never changes.
func TestChangedArchives(t *testing.T) {
	whole := archive(t, dir("d"), file("d/f", "x").with("user.x", "y"), symlink("s", "/tmp"), hardlink("l", "d/f"), marker("d/.wh.x"),
		marker(".wh..wh..opq"), device("n", tar.TypeChar, 1, 3))
	random := rand.New(rand.NewPCG(1, 2))
	unpacked := 0
	for range 500 {
		changed := bytes.Clone(whole)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(changed))
			changed[at] = byte(random.Uint32())
			if random.IntN(2) == 0 {
				checksum(changed[at/512*512:])
			}
		}
		folder, _, err := apply(t, changed, Options{})
		if err != nil {
			wantNames(t, err.Error(), folder)
			continue
		}
		unpacked++
		wantNames(t, "unpacked", folder, "layer")
	}
	if unpacked == 0 || unpacked == 500 {
		t.Errorf("%d of 500 are unpacked: the test changes too much or nothing", unpacked)
	}
}
