package fs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// sparse is a file with data at both ends of a hole.
const sparse = "file f \"head\"\nsize f 300000"

func sparseText(tail string) string {
	return testkit.Quoted("head" + strings.Repeat("\x00", 300000-4) + tail)
}

// noteACL lets user 1234 read.
const noteACL = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff \x00\x00\x00\xff\xff\xff\xff"

// The scenarios of the fault loop.
var scenarios = slices.Concat(copyUps, metacopies, creations, removals, renames, linked, flagged, tmpfileScenarios)

var copyUps = []scenario{
	{
		name: "write to a lower file, two directories down", copies: true,
		lower: "file d/e/f \"old text\"\nown d/e/f 5 6\nxattr d/e/f user.note kept\nxattr d trusted.overlay.opaque n\nown d 7 8\n" +
			"xattr d user.note d\nfile d/other",
		send: func(s *site) request { return s.write("d/e/f", 4, "data") },
		change: `- file d/e/f 0644 "old text" own 5 6 user.note="kept"
			+ file d/e/f 0644 "old data" own 5 6 user.note="kept"`,
	},
	{
		name: "append to a large lower file", copies: true, lower: sparse,
		send:   func(s *site) request { return s.write("f", 300000, "tail") },
		change: "- file f 0644 " + sparseText("") + "\n+ file f 0644 " + sparseText("tail"),
	},
	{
		name: "write to an upper file", upper: "file f \"abc\"",
		send:   func(s *site) request { return s.write("f", 0, "x") },
		change: "- file f 0644 \"abc\"\n+ file f 0644 \"xbc\"",
	},
	{
		name: "truncate a lower file to nothing", copies: true, lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 0) },
		change: "- file f 0644 \"text\"\n+ file f 0644 \"\"",
	},
	{
		name: "truncate a lower file to less", copies: true, lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 2) },
		change: "- file f 0644 \"text\"\n+ file f 0644 \"te\"",
	},
	{
		name: "truncate a lower file to more", copies: true, lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 6) },
		change: "- file f 0644 \"text\"\n+ file f 0644 \"text\\x00\\x00\"",
	},
	{
		name: "chmod of a lower file", copies: true, lower: "file d/f \"text\"",
		send:   func(s *site) request { return s.chmod("d/f", 0o600) },
		change: "- file d/f 0644 \"text\"\n+ file d/f 0600 \"text\"",
	},
	{
		name: "chmod of a lower directory", copies: true, lower: "dir d/e 0711\nown d/e 1 2\nfile d/e/f",
		send:   func(s *site) request { return s.chmod("d/e", 0o750) },
		change: "- dir d/e 0711 own 1 2\n+ dir d/e 0750 own 1 2",
	},
	{
		name: "chown of a lower symlink", copies: true, lower: "symlink l nowhere",
		send:   func(s *site) request { return s.chown("l", 3, 4) },
		change: "- symlink l nowhere\n+ symlink l nowhere own 3 4",
	},
	{
		name: "chmod of a lower fifo", copies: true, lower: "fifo p",
		send:   func(s *site) request { return s.chmod("p", 0o600) },
		change: "- fifo p 0644\n+ fifo p 0600",
	},
	{
		name: "chmod of a lower device", copies: true, lower: "block b 8/1 0640",
		send:   func(s *site) request { return s.chmod("b", 0o600) },
		change: "- block b 8/1 0640\n+ block b 8/1 0600",
	},
	{
		name: "chmod of a lower socket", copies: true, lower: "sock s",
		send:   func(s *site) request { return s.chmod("s", 0o600) },
		change: "- sock s 0644\n+ sock s 0600",
	},
	{
		name: "setxattr of a lower file", copies: true, lower: "file f \"text\"",
		send:   func(s *site) request { return s.setxattr("f", "user.note", "new") },
		change: "- file f 0644 \"text\"\n+ file f 0644 \"text\" user.note=\"new\"",
	},
	{
		name: "removexattr of a lower directory", copies: true, lower: "dir d\nxattr d user.note old",
		send:   func(s *site) request { return s.removexattr("d", "user.note") },
		change: "- dir d 0755 user.note=\"old\"\n+ dir d 0755",
	},
	{
		name: "ACL of a lower file", copies: true, inodes: true, lower: "file f",
		send:   func(s *site) request { return s.setxattr("f", accessACL, noteACL) },
		change: "- file f 0644 \"\"\n+ file f 0640 \"\" system.posix_acl_access=" + testkit.Quoted(noteACL),
	},
	{
		name: "fallocate in a lower file", copies: true, lower: "file f \"text\"",
		send: func(s *site) request {
			return s.onNode("f", func(id uint64) error {
				return errorOf(s.o.Fallocate(nil, &fuse.FallocateIn{InHeader: s.header(id), Offset: 4, Length: 2}))
			})
		},
		change: "- file f 0644 \"text\"\n+ file f 0644 \"text\\x00\\x00\"",
	},
	{
		name: "copy_file_range between lower files", copies: true, lower: "file f \"text\"\nfile g",
		send: func(s *site) request {
			from, err := s.walk("f")
			if err != nil {
				return failed(err)
			}
			return s.onNode("g", func(id uint64) error {
				in := fuse.CopyFileRangeIn{InHeader: s.header(from), NodeIdOut: id, Len: 4}
				_, st := s.o.CopyFileRange(nil, &in)
				return errorOf(st)
			})
		},
		change: "- file g 0644 \"\"\n+ file g 0644 \"text\"",
	},
	{
		name: "list, look up, read", inodes: true, upper: "file a/f \"text\"\nwhite a/w", lower: "file a/w\nfile a/x\nsymlink a/l x",
		send: func(s *site) request { return func() error { _, err := s.kernel.view(); return lastError(err) } },
	},
}

// metacopied is a table with a file whose data is in the lower.
func metacopied(path string, size int, mode string) string {
	return fmt.Sprintf("file %[1]s %[3]s\nsize %[1]s %[2]d\nxattr %[1]s trusted.overlay.metacopy \"\"\nxattr %[1]s user.note kept\n", path, size, mode)
}

var metacopies = []scenario{
	{
		name: "write to a metacopy", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.write("f", 1, "xx") },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file f 0600 \"txxt\" user.note=\"kept\"",
	},
	{
		name: "append to a large metacopy", metacopy: true, upper: metacopied("f", 300000, "4755"), lower: sparse,
		send:   func(s *site) request { return s.write("f", 300000, "tail") },
		change: "- file f 4755 " + sparseText("") + " user.note=\"kept\"\n+ file f 4755 " + sparseText("tail") + " user.note=\"kept\"",
	},
	{
		name: "truncate a metacopy to nothing", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 0) },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file f 0600 \"\" user.note=\"kept\"",
	},
	{
		name: "truncate a metacopy to less", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 3) },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file f 0600 \"tex\" user.note=\"kept\"",
	},
	{
		name: "truncate a metacopy to more", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.truncate("f", 5) },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file f 0600 \"text\\x00\" user.note=\"kept\"",
	},
	{
		name: "chmod of a metacopy", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.chmod("f", 0o644) },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file f 0644 \"text\" user.note=\"kept\"",
	},
	{
		name: "rename a metacopy beside", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.rename("f", "g", 0) },
		change: "- file f 0600 \"text\" user.note=\"kept\"\n+ file g 0600 \"text\" user.note=\"kept\"",
	},
	{
		name: "rename a metacopy elsewhere, over a file", metacopy: true, upper: metacopied("p/f", 4, "0600") + "file q/g \"old\"", lower: "file p/f \"text\"",
		send:   func(s *site) request { return s.rename("p/f", "q/g", 0) },
		change: "- file p/f 0600 \"text\" user.note=\"kept\"\n- file q/g 0644 \"old\"\n+ file q/g 0600 \"text\" user.note=\"kept\"",
	},
	{
		name: "rename a lower file elsewhere", metacopy: true, lower: "file p/f \"text\"\ndir q",
		send:   func(s *site) request { return s.rename("p/f", "q/g", 0) },
		change: "- file p/f 0644 \"text\"\n+ file q/g 0644 \"text\"",
	},
	{
		name: "exchange metacopies", metacopy: true, upper: metacopied("p/f", 4, "0600") + metacopied("q/g", 5, "0640"),
		lower: "file p/f \"text\"\nfile q/g \"other\"",
		send:  func(s *site) request { return s.rename("p/f", "q/g", unix.RENAME_EXCHANGE) },
		change: "- file p/f 0600 \"text\" user.note=\"kept\"\n- file q/g 0640 \"other\" user.note=\"kept\"\n" +
			"+ file p/f 0640 \"other\" user.note=\"kept\"\n+ file q/g 0600 \"text\" user.note=\"kept\"",
	},
	{
		name: "link a metacopy", metacopy: true, upper: metacopied("p/f", 4, "0600") + "dir q", lower: "file p/f \"text\"",
		send:   func(s *site) request { return s.link("p/f", "q/g") },
		change: "+ file q/g 0600 \"text\" user.note=\"kept\"",
	},
	{
		name: "remove a metacopy", metacopy: true, upper: metacopied("f", 4, "0600"), lower: "file f \"text\"",
		send:   func(s *site) request { return s.unlink("f") },
		change: "- file f 0600 \"text\" user.note=\"kept\"",
	},
}

// lastError is the errno in an error.
func lastError(err error) error {
	var errno unix.Errno
	for e := err; e != nil; {
		if n, ok := e.(unix.Errno); ok {
			errno = n
			break
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		e = u.Unwrap()
	}
	if errno == 0 {
		return err
	}
	return errno
}

var creations = []scenario{
	{
		name: "create a file in a lower directory", lower: "file d/e/other",
		send:   func(s *site) request { return s.mknod("d/e/f", unix.S_IFREG|0o640, 0) },
		change: "+ file d/e/f 0640 \"\"",
	},
	{
		name: "create a file of another owner", upper: "dir d 2775\nown d 0 9",
		send: func(s *site) request {
			s.uid = 1000
			return s.mknod("d/f", unix.S_IFREG|0o640, 0)
		},
		change: "+ file d/f 0640 \"\" own 1000 9",
	},
	{
		name: "create a directory", upper: "dir d",
		send:   func(s *site) request { return s.mkdir("d/e", 0o700) },
		change: "+ dir d/e 0700",
	},
	{
		name: "create a device", upper: "dir d",
		send:   func(s *site) request { return s.mknod("d/e", unix.S_IFCHR|0o600, kernelDev(unix.Mkdev(300, 70000))) },
		change: "+ char d/e 300/70000 0600",
	},
	{
		name: "create a file over a whiteout", formats: true, upper: "white f", lower: "file f \"old\"",
		send:   func(s *site) request { return s.mknod("f", unix.S_IFREG|0o600, 0) },
		change: "+ file f 0600 \"\"",
	},
	{
		name: "create a file over a directory's whiteout", formats: true, upper: "dir d\nwhite d/f", lower: "dir d/f\nfile d/f/old",
		send:   func(s *site) request { return s.mknod("d/f", unix.S_IFREG|0o600, 0) },
		change: "+ file d/f 0600 \"\"",
	},
	{
		name: "create a directory over a directory's whiteout", formats: true, upper: "white d", lower: "file d/old",
		send:   func(s *site) request { return s.mkdir("d", 0o700) },
		change: "+ dir d 0700",
	},
	{
		name: "create a directory over a file's whiteout", formats: true, upper: "white d", lower: "file d",
		send:   func(s *site) request { return s.mkdir("d", 0o700) },
		change: "+ dir d 0700",
	},
	{
		name: "create a directory over a whiteout of nothing", formats: true, upper: "dir p\nwhite p/d", lower: "dir p",
		send:   func(s *site) request { return s.mkdir("p/d", 0o700) },
		change: "+ dir p/d 0700",
	},
	{
		name: "create a symlink over a whiteout", formats: true, upper: "white l", lower: "file l",
		send:   func(s *site) request { return s.symlink("to/nowhere", "l") },
		change: "+ symlink l to/nowhere",
	},
	{
		name: "link of a lower file", lower: "file d/f \"text\"\ndir e\nfile e/other",
		send:   func(s *site) request { return s.link("d/f", "e/g") },
		change: "+ file e/g 0644 \"text\"",
	},
	{
		name: "link of a lower file over a whiteout", formats: true, upper: "white g", lower: "file f \"text\"\ndir g",
		send:   func(s *site) request { return s.link("f", "g") },
		change: "+ file g 0644 \"text\"",
	},
	{
		name: "link of an upper file", upper: "file f \"text\"\nlink g f",
		send:   func(s *site) request { return s.link("g", "h") },
		change: "+ file h 0644 \"text\"",
	},
}

var removals = []scenario{
	{
		name: "unlink of a lower file", formats: true, lower: "file d/e/f \"old\"",
		send:   func(s *site) request { return s.unlink("d/e/f") },
		change: "- file d/e/f 0644 \"old\"",
	},
	{
		name: "unlink of an upper file over a lower one", formats: true, upper: "file f \"new\"", lower: "file f \"old\"",
		send:   func(s *site) request { return s.unlink("f") },
		change: "- file f 0644 \"new\"",
	},
	{
		name: "unlink of an upper file", formats: true, upper: "file f \"new\"", lower: "file g",
		send:   func(s *site) request { return s.unlink("f") },
		change: "- file f 0644 \"new\"",
	},
	{
		name: "unlink of a symlink over a directory", formats: true, upper: "symlink l x", lower: "file l/old",
		send:   func(s *site) request { return s.unlink("l") },
		change: "- symlink l x",
	},
	{
		name: "rmdir of a merged directory", formats: true, upper: "dir d\nown d 1 1\nwhite d/a\nwhite d/b", lower: "file d/a\nfile d/b/c",
		send:   func(s *site) request { return s.rmdir("d") },
		change: "- dir d 0755 own 1 1",
	},
	{
		name: "rmdir of a lower directory", formats: true, lower: "dir p/d 0700",
		send:   func(s *site) request { return s.rmdir("p/d") },
		change: "- dir p/d 0700",
	},
	{
		name: "rmdir of an upper directory with whiteouts", formats: true, upper: "opaque d\nwhite d/a\nwhite d/b",
		send:   func(s *site) request { return s.rmdir("d") },
		change: "- dir d 0755",
	},
	{
		name: "rmdir of an upper directory", formats: true, upper: "dir d",
		send:   func(s *site) request { return s.rmdir("d") },
		change: "- dir d 0755",
	},
}

var renames = []scenario{
	{
		name: "rename a file over a lower file", formats: true, upper: "file a \"new\"", lower: "file b \"old\"",
		send:   func(s *site) request { return s.rename("a", "b", 0) },
		change: "- file a 0644 \"new\"\n- file b 0644 \"old\"\n+ file b 0644 \"new\"",
	},
	{
		name: "rename a lower file", formats: true, lower: "file d/a \"old\"\nfile e/x",
		send:   func(s *site) request { return s.rename("d/a", "e/b", 0) },
		change: "- file d/a 0644 \"old\"\n+ file e/b 0644 \"old\"",
	},
	{
		name: "rename an upper directory", formats: true, upper: "file p/d/f\ndir q",
		send:   func(s *site) request { return s.rename("p/d", "q/e", 0) },
		change: "- dir p/d 0755\n- file p/d/f 0644 \"\"\n+ dir q/e 0755\n+ file q/e/f 0644 \"\"",
	},
	{
		name: "rename an upper directory over a whiteout", formats: true, upper: "file d/f\nwhite e", lower: "file e/old",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- file d/f 0644 \"\"\n+ dir e 0755\n+ file e/f 0644 \"\"",
	},
	{
		name: "rename a directory that replaced one", formats: true, upper: "opaque d\nfile d/f", lower: "file d/old",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- file d/f 0644 \"\"\n+ dir e 0755\n+ file e/f 0644 \"\"",
	},
	{
		name: "rename a directory that replaced one over a whiteout", formats: true, upper: "opaque d\nfile d/f\nwhite e",
		lower:  "file d/old\nfile e/old",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- file d/f 0644 \"\"\n+ dir e 0755\n+ file e/f 0644 \"\"",
	},
	{
		name: "rename a directory over an empty merged one", formats: true,
		upper: "file d/f\ndir e 0700\nown e 1 2\nxattr e user.note x\nwhite e/old", lower: "file e/old",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- dir e 0700 own 1 2 user.note=\"x\"\n- file d/f 0644 \"\"\n+ dir e 0755\n+ file e/f 0644 \"\"",
	},
	{
		name: "rename a directory over a lower one", formats: true, upper: "file d/f", lower: "dir e 0700",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- dir e 0700\n- file d/f 0644 \"\"\n+ dir e 0755\n+ file e/f 0644 \"\"",
	},
	{
		name: "rename a merged directory", formats: true, redirects: true, upper: "file d/u", lower: "file d/l\nfile d/e/f",
		send: func(s *site) request { return s.rename("d", "x", 0) },
		change: "- dir d 0755\n- dir d/e 0755\n- file d/e/f 0644 \"\"\n- file d/l 0644 \"\"\n- file d/u 0644 \"\"\n" +
			"+ dir x 0755\n+ dir x/e 0755\n+ file x/e/f 0644 \"\"\n+ file x/l 0644 \"\"\n+ file x/u 0644 \"\"",
	},
	{
		name: "rename a lower directory into another", formats: true, redirects: true, lower: "file p/d/l\nfile q/e/old",
		upper:  "white q/e",
		send:   func(s *site) request { return s.rename("p/d", "q/e", 0) },
		change: "- dir p/d 0755\n- file p/d/l 0644 \"\"\n+ dir q/e 0755\n+ file q/e/l 0644 \"\"",
	},
	{
		name: "rename a lower directory over an empty one", formats: true, overDir: true, redirects: true, lower: "file d/l\ndir e",
		send:   func(s *site) request { return s.rename("d", "e", 0) },
		change: "- dir d 0755\n- file d/l 0644 \"\"\n+ file e/l 0644 \"\"",
	},
	{
		name: "exchange merged directories", redirects: true, lower: "file d/l\nfile p/e/m", upper: "file d/u",
		send: func(s *site) request { return s.rename("d", "p/e", unix.RENAME_EXCHANGE) },
		change: "- file d/l 0644 \"\"\n- file d/u 0644 \"\"\n- file p/e/m 0644 \"\"\n" +
			"+ file d/m 0644 \"\"\n+ file p/e/l 0644 \"\"\n+ file p/e/u 0644 \"\"",
	},
	{
		name: "rename a file over a whiteout", formats: true, upper: "file a \"new\"\nwhite b", lower: "file b \"old\"",
		send:   func(s *site) request { return s.rename("a", "b", 0) },
		change: "- file a 0644 \"new\"\n+ file b 0644 \"new\"",
	},
	{
		name: "rename a file that replaced one over a whiteout", formats: true, upper: "file a \"new\"\nwhite b", lower: "file a\ndir b",
		send:   func(s *site) request { return s.rename("a", "b", unix.RENAME_NOREPLACE) },
		change: "- file a 0644 \"new\"\n+ file b 0644 \"new\"",
	},
	{
		name: "exchange two files", formats: true, upper: "file a \"upper\"", lower: "file a\nfile d/b \"lower\"",
		send:   func(s *site) request { return s.rename("a", "d/b", unix.RENAME_EXCHANGE) },
		change: "- file a 0644 \"upper\"\n- file d/b 0644 \"lower\"\n+ file a 0644 \"lower\"\n+ file d/b 0644 \"upper\"",
	},
	{
		name: "exchange a directory and a file", formats: true, upper: "file d/f", lower: "file a \"lower\"",
		send: func(s *site) request { return s.rename("a", "d", unix.RENAME_EXCHANGE) },
		change: "- dir d 0755\n- file a 0644 \"lower\"\n- file d/f 0644 \"\"\n+ dir a 0755\n+ file a/f 0644 \"\"\n" +
			"+ file d 0644 \"lower\"",
	},
}
