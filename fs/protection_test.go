package fs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// flagLetters are chattr's letters of the flags that matter here.
var flagLetters = map[rune]uint32{'i': sys.FlagImmutable, 'a': sys.FlagAppend, 'A': sys.FlagNoatime, 'd': sys.FlagNodump}

// flags returns the flags of an object. They are empty if its file system has no flags.
func (k *kernel) flags(id uint64) (letters string) {
	word, err := k.ioctl(id, wire.IoctlGetFlags, 0)
	if err != nil {
		return ""
	}
	for _, letter := range "iaAd" {
		if word&flagLetters[letter] != 0 {
			letters += string(letter)
		}
	}
	return letters
}

// ioctl makes an IOCTL with a word as argument, and returns the word of the answer.
func (k *kernel) ioctl(id uint64, cmd, arg uint32) (uint32, error) {
	in := &fuse.IoctlIn{InHeader: k.header(id), Cmd: cmd}
	var inbuf, outbuf []byte
	if cmd == wire.IoctlSetFlags {
		inbuf = binary.NativeEndian.AppendUint32(nil, arg)
	} else {
		outbuf = make([]byte, 4)
	}
	s := k.o.Ioctl(nil, in, inbuf, &fuse.IoctlOut{}, outbuf)
	if err := errorOf(s); err != nil || cmd == wire.IoctlSetFlags {
		return 0, err
	}
	return binary.NativeEndian.Uint32(outbuf), nil
}

// chattr sets an object's flags to those of letters.
func (k *kernel) chattr(p, letters string) request {
	return k.onNode(p, func(id uint64) error {
		word, err := k.ioctl(id, wire.IoctlGetFlags, 0)
		if err != nil {
			return err
		}
		for _, bit := range flagLetters {
			word &^= bit
		}
		for _, letter := range letters {
			word |= flagLetters[letter]
		}
		_, err = k.ioctl(id, wire.IoctlSetFlags, word)
		return err
	})
}

// flagged are scenarios of the fault loop.
var flagged = []scenario{
	{
		name: "chattr +i of a lower file", lower: "file d/f \"text\"", copies: true,
		send:   func(s *site) request { return s.chattr("d/f", "i") },
		change: "- file d/f 0644 \"text\"\n+ file d/f 0644 \"text\" flags=\"i\"",
	},
	{
		name: "chattr +a of an upper directory", upper: "dir d",
		send:   func(s *site) request { return s.chattr("d", "a") },
		change: "- dir d 0755\n+ dir d 0755 flags=\"a\"",
	},
	{
		name: "chattr -i of an upper file", upper: "file f \"text\"\nxattr f trusted.overlay.protattr i",
		send:   func(s *site) request { return s.chattr("f", "") },
		change: "- file f 0644 \"text\" flags=\"i\"\n+ file f 0644 \"text\"",
	},
	{
		name: "append to an append-only file", upper: "file f \"text\"\nxattr f trusted.overlay.protattr a",
		send: func(s *site) request {
			return s.onNode("f", func(id uint64) error {
				return s.writeAs(&fuse.WriteIn{InHeader: s.header(id), Offset: 4, Size: 4, Flags: unix.O_WRONLY | unix.O_APPEND}, "more")
			})
		},
		change: "- file f 0644 \"text\" flags=\"a\"\n+ file f 0644 \"textmore\" flags=\"a\"",
	},
}

// Each request that would change a protected object is refused, and nothing has changed then: not
// even a copy-up happens.
func TestProtectedIsNotChanged(t *testing.T) {
	for _, flag := range []string{"i", "a"} {
		s := newSite(t, "file up \"text\"\ndir updir\nfile updir/x\nfile other", "file low \"text\"\ndir lowdir\nfile lowdir/x")
		for _, name := range []string{"up", "updir"} {
			must(t, unix.Setxattr(filepath.Join(s.cfg.Upper, name), "trusted.overlay.protattr", []byte(flag), 0))
		}
		lower := s.cfg.Lowers[0]
		for _, name := range []string{"low", "lowdir"} {
			protectInode(t, filepath.Join(lower, name), flag)
		}
		s.remount()
		before := s.view()
		for what, send := range map[string]request{
			"unlink of up": s.unlink("up"), "unlink of low": s.unlink("low"), "rmdir": s.rmdir("updir"), "rmdir of low": s.rmdir("lowdir"),
			"unlink in a directory": s.unlink("updir/x"), "unlink in a lower directory": s.unlink("lowdir/x"),
			"rename": s.rename("up", "new", 0), "rename of low": s.rename("low", "new", 0), "rename onto it": s.rename("other", "low", 0),
			"exchange": s.rename("other", "up", unix.RENAME_EXCHANGE), "rename out of it": s.rename("lowdir/x", "new", 0),
			"link": s.link("low", "new"), "chmod": s.chmod("low", 0o600), "chmod of a directory": s.chmod("lowdir", 0o700),
			"truncate": s.truncate("low", 0), "chown": s.chown("up", 1, 1), "setxattr": s.setxattr("low", "user.x", "y"),
			"removexattr": s.removexattr("low", "user.x"), "write": s.write("low", 0, "TEXT"), "write beyond": s.write("up", 4, "more"),
		} {
			want(t, flag+": "+what, send(), unix.EPERM)
		}
		if flag == "i" {
			want(t, "create", s.mknod("lowdir/new", unix.S_IFREG|0o644, 0)(), unix.EPERM)
			want(t, "mkdir", s.mkdir("updir/new", 0o755)(), unix.EPERM)
		}
		if now := s.view(); now != before {
			t.Errorf("%s: something has changed:\n%s\n%s", flag, before, now)
		}
		for _, name := range []string{"low", "lowdir"} {
			if _, err := os.Lstat(filepath.Join(s.cfg.Upper, name)); err == nil {
				t.Errorf("%s: %s has been copied up", flag, name)
			}
		}
		s.do(s.chattr("lowdir", ""))
		s.do(s.unlink("lowdir/x"))
		s.do(s.rmdir("lowdir"))
	}
}

// protectInode sets the flag of an inode until the end of the test.
func protectInode(t *testing.T, path, flag string) {
	t.Helper()
	set := func(bits uint32) error {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(bits))
	}
	must(t, set(flagLetters[rune(flag[0])]))
	t.Cleanup(func() { must(t, set(0)) })
}

// Before Linux 5.14 the kernel does not check the right of a process to change flags.
func TestWhoMayChangeFlags(t *testing.T) {
	s := newSite(t, "file root \"r\"\nfile own \"o\"\nown own 1000 1000", "")
	s.o.policy.ChecksFlags = true
	send := func(p string, uid, thread, flag uint32) error {
		id, err := s.walk(p)
		must(t, err)
		in := &fuse.IoctlIn{InHeader: s.header(id), Cmd: wire.IoctlSetFlags}
		in.Uid, in.Pid = uid, thread
		return errorOf(s.o.Ioctl(nil, in, binary.NativeEndian.AppendUint32(nil, flag), &fuse.IoctlOut{}, nil))
	}
	self := uint32(os.Getpid())
	want(t, "another's", send("root", 1000, self, sys.FlagNodump), unix.EPERM)
	want(t, "his own", send("own", 1000, self, sys.FlagNodump), nil)
	want(t, "root, of any file", send("own", 0, self, 0), nil)
	want(t, "immutable, by root", send("own", 0, self, sys.FlagImmutable), nil)
	want(t, "no more, by a thread that is gone", send("own", 0, 0, 0), unix.EPERM)
	want(t, "no more, by root", send("own", 0, self, 0), nil)
}
