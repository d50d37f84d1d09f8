package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// describe writes what differs from the defaults, so a test has everything that a command line does
// and nothing else.
func describe(r *request) string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	o, m := &r.overlay, &r.mount
	if r.fake {
		say("fake")
	}
	say("%s", strings.Join(o.Lowers, "|"))
	if o.Upper != "" {
		say("upper %s work %s", o.Upper, o.Work)
	}
	for _, f := range []struct {
		differs bool
		name    string
	}{
		{r.foreground, "foreground"}, {m.Debug, "debug"}, {o.Volatile, "volatile"}, {o.NoFsync, "nofsync"},
		{o.NoACL, "noacl"}, {o.NoXattrs, "noxattrs"}, {o.StaticNlink, "static_nlink"}, {o.Conn.Writeback == conn.WritebackOn, "writeback"}, {o.Conn.Writeback == conn.WritebackOff, "writeback=0"},
		{m.AllowOther, "allow_other"},
	} {
		if f.differs {
			say("%s", f.name)
		}
	}
	for _, f := range []struct {
		bit  uintptr
		name string
	}{
		{unix.MS_RDONLY, "ro"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NOEXEC, "noexec"},
		{unix.MS_NOATIME, "noatime"}, {unix.MS_RELATIME, "relatime"}, {unix.MS_STRICTATIME, "strictatime"}, {unix.MS_NODIRATIME, "nodiratime"},
		{unix.MS_LAZYTIME, "lazytime"}, {unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"},
	} {
		if m.Flags&f.bit != 0 {
			say("%s", f.name)
		}
	}
	if o.Conn.Timeout != withoutEnd {
		say("timeout %v", o.Conn.Timeout)
	}
	if o.LayersChange {
		say("layers-change")
	}
	if o.Conn.CPUIdle != conn.CPUIdleAuto {
		say("cpu_idle %d", o.Conn.CPUIdle)
	}
	if o.Disabled != 0 {
		say("disable %v", o.Disabled)
	}
	if o.CacheInodes != 0 {
		say("cache_inodes %d", o.CacheInodes)
	}
	if o.Conn.MaxWrite != 0 {
		say("max_write %d", o.Conn.MaxWrite)
	}
	if r.logFile != "" {
		say("log %s", r.logFile)
	}
	say("%s(%s) on %s", m.Type, m.Source, m.Point)
	for _, n := range r.notes {
		say("note %s", strings.Fields(n)[1])
	}
	for _, i := range r.ignored {
		say("ignored %s", i)
	}
	return strings.Join(words, " ")
}

// shell splits a command line at its blanks. Single quotes are those of the shell.
func shell(line string) []string {
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

// plainUser is a euid without rights.
const plainUser = 1000

func parsed(line string) (*request, error) { return parsedArguments(shell(line)) }

func parsedArguments(argv []string) (*request, error) {
	r, err := parseRequest(mountargs.CalledBy(argv), argv)
	if err == nil {
		err = r.complete(plainUser)
	}
	return r, err
}

func TestCommandLinesThatCallersUse(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		// containers/storage: podman, buildah, CRI-O.
		{`/usr/bin/fuse-overlay -o lowerdir=S/overlay/l/AAA:S/overlay/l/BBB,upperdir=S/overlay/ID/diff,workdir=S/overlay/ID/work,,volatile S/overlay/ID/merged`,
			"S/overlay/l/AAA|S/overlay/l/BBB upper S/overlay/ID/diff work S/overlay/ID/work volatile fuse-overlay(fuse-overlay) on S/overlay/ID/merged"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w, S/overlay/ID/merged`,
			"l upper u work w fuse-overlay(fuse-overlay) on S/overlay/ID/merged"},
		{`fuse-overlay -o lowerdir=S/overlay/ID/diff:S/overlay/l/AAA S/overlay/ID/merged`,
			"S/overlay/ID/diff|S/overlay/l/AAA ro fuse-overlay(fuse-overlay) on S/overlay/ID/merged"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,volatile,context="system_u:object_r:container_file_t:s0:c1,c2" M`,
			"l upper u work w volatile fuse-overlay(fuse-overlay) on M"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,,fsync=0,volatile M`,
			"l upper u work w volatile nofsync fuse-overlay(fuse-overlay) on M"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,,noacl,volatile M`,
			"l upper u work w volatile noacl fuse-overlay(fuse-overlay) on M"},
		// A volume :O.
		{`fuse-overlay -o lowerdir=/path\:with/colon,upperdir=u,workdir=w,private DIR/merge`,
			"/path:with/colon upper u work w fuse-overlay(fuse-overlay) on DIR/merge"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,private,context="a,b" DIR/merge`,
			"l upper u work w fuse-overlay(fuse-overlay) on DIR/merge"},
		// moby.
		{`fuse-overlayfs -o lowerdir=a:b,upperdir=u,workdir=w DATA/fuse-overlayfs/ID/merged`,
			"a|b upper u work w fuse-overlayfs(fuse-overlayfs) on DATA/fuse-overlayfs/ID/merged"},
		{`fuse-overlayfs -o lowerdir=a:b DATA/fuse-overlayfs/ID/merged`,
			"a|b ro fuse-overlayfs(fuse-overlayfs) on DATA/fuse-overlayfs/ID/merged"},
		// containerd, through mount.fuse3.
		{`fuse-overlayfs overlay T -o workdir=w,upperdir=u,lowerdir=a:b,dev,suid`,
			"a|b upper u work w fuse-overlayfs(overlay) on T"},
		{`'fuse-overlayfs' 'overlay' 'T' '-o' 'workdir=w,upperdir=u,lowerdir=a,dev,suid'`,
			"a upper u work w fuse-overlayfs(overlay) on T"},
		{`fuse-overlayfs overlay T -o lowerdir=a:b,dev,suid`, "a|b ro fuse-overlayfs(overlay) on T"},
		{`fuse-overlayfs overlay T -o workdir=w,upperdir=u,lowerdir=a,ro,dev,suid`,
			"a upper u work w ro fuse-overlayfs(overlay) on T"},
		// mount(8) and fstab.
		{`fuse-overlayfs overlay T -o rw,lowerdir=a,upperdir=u,workdir=w,dev,suid`,
			"a upper u work w fuse-overlayfs(overlay) on T"},
		{`fuse-overlay overlay T -o rw,nosuid,nodev,noatime,lowerdir=a,upperdir=u,workdir=w`,
			"a upper u work w nodev nosuid noatime fuse-overlay(overlay) on T"},
		{`fuse-overlay overlay T -o rw,noexec,nosuid,nodev,allow_other,lowerdir=a`,
			"a allow_other ro nodev nosuid noexec fuse-overlay(overlay) on T"},
		{`fuse-overlay overlay T -o ro,lowerdir=a,dev,suid`, "a ro fuse-overlay(overlay) on T"},
		// mount(8) by the name of a mount helper.
		{`/sbin/mount.fuse-overlay overlay T -o rw,lowerdir=a,upperdir=u,workdir=w`,
			"a upper u work w fuse-overlay(overlay) on T"},
		{`/sbin/mount.fuse-overlay overlay T -s -n -v -o ro,lowerdir=a,nonsense -t fuse-overlay.sub`,
			"a ro fuse-overlay(overlay) on T ignored nonsense"},
		{`/sbin/mount.fuse-overlay overlay T -fv -o rw,noexec,nosuid,nodev,lowerdir=a,user,_netdev,nofail`,
			"fake a ro nodev nosuid noexec fuse-overlay(overlay) on T"},
		{`mount.fuse-overlay overlay T -o rw,strictatime,lowerdir=a,users,owner,group,nouser,user=joe`,
			"a ro strictatime fuse-overlay(overlay) on T"},
		{`mount.fuse-overlayfs overlay T -o lowerdir=a,b`, "a ro fuse-overlayfs(overlay) on T ignored b"},
		// enroot, apptainer, benchexec.
		{`fuse-overlayfs -f -o lowerdir=R/lower,upperdir=R/upper,workdir=R/work R`,
			"R/lower upper R/upper work R/work foreground fuse-overlayfs(fuse-overlayfs) on R"},
		{`fuse-overlayfs -f -o lowerdir=l,upperdir=u,workdir=w,noacl TARGET`,
			"l upper u work w foreground noacl fuse-overlayfs(fuse-overlayfs) on TARGET"},
		{`fuse-overlayfs -o lowerdir=/ -o upperdir=u -o workdir=w M`,
			"/ upper u work w fuse-overlayfs(fuse-overlayfs) on M"},
	} {
		r, err := parsed(tt.line)
		if err != nil {
			t.Errorf("%s\n   error: %v", tt.line, err)
			continue
		}
		if got := describe(r); got != tt.want {
			t.Errorf("%s\n   got: %s\n  want: %s", tt.line, got, tt.want)
		}
	}
}

func TestCommandLineForms(t *testing.T) {
	const on = "fuse-overlay(fuse-overlay) on M"
	for _, tt := range []struct{ line, want string }{
		{`fuse-overlay M -o lowerdir=l`, "l ro " + on},
		{`fuse-overlay -olowerdir=l M`, "l ro " + on},
		{`fuse-overlay -fo lowerdir=l M`, "l foreground ro " + on},
		{`fuse-overlay -folowerdir=l M`, "l foreground ro " + on},
		{`fuse-overlay -o lowerdir=l --foreground -- M`, "l foreground ro " + on},
		{`fuse-overlay -o lowerdir=l -- -M`, "l ro fuse-overlay(fuse-overlay) on -M"},
		{`fuse-overlay -d -o lowerdir=l M`, "l foreground debug ro " + on},
		{`fuse-overlay --debug -o lowerdir=l M`, "l foreground debug ro " + on},
		{`fuse-overlay -o lowerdir=l src -o volatile M`, "l ro fuse-overlay(src) on M note volatile"},
		{`fuse-overlay -o lowerdir=l,fsname=fs\,name src M`, "l ro fuse-overlay(fs,name) on M"},
		{`fuse-overlay -o lowerdir=l,subtype=sub M`, "l ro sub(fuse-overlay) on M"},
		{`fuse-overlay -o '' -o , -o lowerdir=l M`, "l ro " + on},

		{`fuse-overlay -o lowerdir=a -o lowerdir=b:c M`, "b|c ro " + on},
		{`fuse-overlay -o lowerdir+=a,lowerdir+=b,lowerdir+=c:d M`, "a|b|c:d ro " + on},
		{`fuse-overlay -o lowerdir+=a,lowerdir=b M`, "b ro " + on},
		{`fuse-overlay -o lowerdir=l,upperdir=/u:p\,per,workdir=/w\:ork M`, "l upper /u:p,per work /w:ork " + on},

		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,ro M`, "l upper u work w ro " + on},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,ro,rw M`, "l upper u work w " + on},
		{`fuse-overlay -o lowerdir=l,rw M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,nodev,nosuid,noexec,noatime,nodiratime,lazytime,sync,dirsync M`,
			"l ro nodev nosuid noexec noatime nodiratime lazytime sync dirsync " + on},
		{`fuse-overlay -o lowerdir=l,nodev,nosuid,noexec,noatime,nodiratime,sync,dev,suid,exec,atime,diratime,async M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,noatime,relatime M`, "l ro relatime " + on},
		{`fuse-overlay -o lowerdir=l,nofail,_netdev,x-systemd.automount,x-gvfs-name=a M`, "l ro " + on},

		{`fuse-overlay -o lowerdir=l,cache_inodes=50000 M`, "l ro cache_inodes 50000 " + on},
		{`fuse-overlay -o lowerdir=l,cpu_idle=auto M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,cpu_idle=poll M`, "l ro cpu_idle 1 " + on},
		{`fuse-overlay -o lowerdir=l,cpu_idle=sleep M`, "l ro cpu_idle 2 " + on},
		{`fuse-overlay -o lowerdir=l,disable=direct_io:spin,disable=prefetch:spin M`, "l ro disable spin, prefetch " + on},
		{`fuse-overlay -o lowerdir=l,timeout=0 M`, "l ro timeout 0s layers-change " + on},
		{`fuse-overlay -o lowerdir=l,timeout=0,timeout=2 M`, "l ro timeout 2s " + on},
		{`fuse-overlay -o lowerdir=l,timeout=1.5 M`, "l ro timeout 1.5s " + on},
		{`fuse-overlay -o lowerdir=l,timeout=1000000000000000000000 M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,max_write=131072 M`, "l ro max_write 131072 " + on},
		{`fuse-overlay -o lowerdir=l,writeback=0,fsync=1,noxattrs,static_nlink M`, "l noxattrs static_nlink writeback=0 ro " + on},
		{`fuse-overlay -o lowerdir=l,writeback,fsync,noxattrs=0 M`, "l writeback ro " + on},
		{`fuse-overlay -o lowerdir=l,log=/var/log/a\,b M`, "l ro log /var/log/a,b " + on},
		{`fuse-overlay -o lowerdir=l M/dev/fd/7`, "l ro fuse-overlay(fuse-overlay) on M/dev/fd/7"},

		{`fuse-overlay -o lowerdir=l,default_permissions,redirect_dir=off,redirect_dir=nofollow,redirect_dir=on,redirect_dir=follow,metacopy=off,index=off M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,xino=off,xino=auto,nfs_export=off,uuid=off,uuid=null,uuid=auto,verity=off M`, "l ro " + on},
		{`fuse-overlay -o lowerdir=l,xattr_permissions=0,io=auto,io=cached,threaded=0,threaded=1,threaded,fast_ino=1 M`, "l ro " + on},

		{`fuse-overlayfs -s --frob -o lowerdir=l,foo=1,,bar M`,
			"l ro fuse-overlayfs(fuse-overlayfs) on M ignored -s ignored --frob ignored foo=1 ignored bar"},
	} {
		r, err := parsed(tt.line)
		if err != nil {
			t.Errorf("%s\n   error: %v", tt.line, err)
			continue
		}
		if got := describe(r); got != tt.want {
			t.Errorf("%s\n   got: %s\n  want: %s", tt.line, got, tt.want)
		}
	}
}

func TestCommandLinesThatAreRefused(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{`fuse-overlay`, "no mount point given"},
		{`fuse-overlay -o`, "-o needs a value after it"},
		{`mount.fuse-overlay overlay M -t`, "-t needs a value after it"},
		{`mount.fuse-overlay overlay M -N /proc/1/fd/4 -o lowerdir=l`, `unknown flag "-N"`},
		{`mount.fuse-overlay --foreground overlay M -o lowerdir=l`, `unknown flag "--foreground"`},
		{`mount.fuse-overlay overlay M -o lowerdir=l,volatil`, `unknown option "volatil"`},
		{`fuse-overlay -o ro,remount`, "no mount point given"},
		{`fuse-overlay -o lowerdir=l a b c`, "more than a source and a mount point"},
		{`fuse-overlay -o lowerdir=l ''`, "the mount point is an empty string"},
		{`fuse-overlay M`, "no lower layer given"},
		{`fuse-overlay -o upperdir=u,workdir=w M`, "no lower layer given"},
		{`fuse-overlay -o lowerdir M`, "option lowerdir needs a value"},
		{`fuse-overlay -o lowerdir= M`, "option lowerdir needs a value"},
		{`fuse-overlay -o lowerdir=a: M`, "option lowerdir: ends with a colon"},
		{`fuse-overlay -o lowerdir=:a M`, "option lowerdir: begins with a colon"},
		{`fuse-overlay -o lowerdir=a::b:c M`, "option lowerdir: regular lower layers cannot follow data layers"},
		{`fuse-overlay -o lowerdir=a:::b M`, "option lowerdir: only single ':' or double '::'"},
		{`fuse-overlay -o lowerdir=a,lowerdir+=b M`, "option lowerdir+: lowerdir+ and datadir+ cannot follow lowerdir"},
		{`fuse-overlay -o lowerdir=a,datadir+=b M`, "option datadir+: lowerdir+ and datadir+ cannot follow lowerdir"},
		{`fuse-overlay -o lowerdir+=a,datadir+=b,lowerdir+=c M`, "option lowerdir+: regular lower layers cannot follow data layers"},
		{`fuse-overlay -o datadir+=b M`, "data-only layers need another lower layer above them"},
		{`fuse-overlay -o lowerdir=l,upperdir=u M`, "upperdir=u needs a workdir="},
		{`fuse-overlay -o lowerdir=l,workdir=w M`, "workdir=w is of no use without an upperdir="},
		{`fuse-overlay -o lowerdir=l,allow_other,allow_root M`, "allow_other and allow_root exclude each other"},
		{`fuse-overlay -o lowerdir=l,allow_root M`, "option allow_root is not supported by this version for plain users"},
		{`fuse-overlay -o lowerdir=l,volatile=1 M`, `option volatile takes no value, but was given "1"`},
		{`fuse-overlay -o lowerdir=l,fsync=yes M`, `option fsync: "yes" is neither 0 nor 1`},
		{`fuse-overlay -o lowerdir=l,fsync= M`, `option fsync: "" is neither 0 nor 1`},
		{`fuse-overlay -o lowerdir=l,cache_inodes=-1 M`, `option cache_inodes: "-1" is not a number of inodes`},
		{`fuse-overlay -o lowerdir=l,cache_inodes=1k M`, `option cache_inodes: "1k" is not a number of inodes`},
		{`fuse-overlay -o lowerdir=l,timeout=-1 M`, `option timeout: "-1" is not a number of seconds`},
		{`fuse-overlay -o lowerdir=l,timeout=NaN M`, `option timeout: "NaN" is not a number of seconds`},
		{`fuse-overlay -o lowerdir=l,max_write=12 M`, `option max_write: "12" is not a number of bytes`},
		{`fuse-overlay -o lowerdir=l,max_write=1M M`, `option max_write: "1M" is not a number of bytes`},
		{`fuse-overlay -o lowerdir=l,volatil M`, `unknown option "volatil"; the nearest known one is "volatile"`},
		{`fuse-overlay -o lowerdri=l M`, `unknown option "lowerdri"; the nearest known one is "lowerdir"`},
		{`fuse-overlay -o upper=u M`, `unknown option "upper"; the nearest known one is "upperdir"`},
		{`fuse-overlay -o wokrdir=u M`, `unknown option "wokrdir"; the nearest known one is "workdir"`},
		{`fuse-overlay -o lowerdir=l,context="a,b M`, `unknown option "b"`},
		{`fuse-overlay -s -o lowerdir=l M`, `unknown flag "-s": options are given by -o; --help lists all`},
		{`fuse-overlay -x -o lowerdir=l M`, `unknown flag "-x": options are given by -o; --help lists all`},
		{`fuse-overlay -o lowerdir=a,b M`, `unknown option "b": --help lists all; layers are separated by ":", and a comma in a name is "\,"`},
		{`fuse-overlay -o lowerdir=l,volatil,b,upper=u,c M`, `unknown options "b", "c": --help lists all; layers are separated by ":", ` +
			`and a comma in a name is "\,"; unknown option "volatil"; the nearest known one is "volatile"; unknown option "upper"; the nearest`},
		{`fuse-overlay --frob -x -o lowerdir=l,b M`, `unknown flags "--frob", "-x": options are given by -o; --help lists all; unknown option "b": `},
		{`fuse-overlay --lowerdir=l M`, `unknown flag "--lowerdir=l": options are given by -o: -o lowerdir=l`},
		{`fuse-overlay --lowerdri=l M`, `unknown flag "--lowerdri=l": options are given by -o: -o lowerdir=l`},
		{`fuse-overlay --lowerdir l M`, `unknown flag "--lowerdir": options are given by -o: -o lowerdir=DIR`},
		{`fuse-overlay --volatile -o lowerdir=l M`, `unknown flag "--volatile": options are given by -o: -o volatile`},
		{`fuse-overlay -ro -o lowerdir=l M`, `unknown flag "-ro": options are given by -o: -o ro`},
		{`fuse-overlay --debug=1 -o lowerdir=l M`, `unknown flag "--debug=1": --debug takes no value`},
		{`fuse-overlay lowerdir=l M`, `no lower layer given: -o lowerdir=DIR[:DIR]... is needed ("lowerdir=l" is an option without -o before it)`},
		{`fuse-overlay -o lowerdir=l upperdir=u workdir=w M`, `more than a source and a mount point given: "upperdir=u", "workdir=w", "M" ("upperdir=u" is`},
		{`fuse-overlay -o lowerdir=l,upperdir=u workdir=w M`, `upperdir=u needs a workdir= on the same file system ("workdir=w" is`},
		{`fuse-overlay -o lowerdir=l,LowerDir=k M`, `unknown option "LowerDir"; the nearest known one is "lowerdir"`},
		{`fuse-overlay -o 'lowerdir=l, upperdir=u' M`, `unknown option " upperdir"; the nearest known one is "upperdir"`},
		{`fuse-overlay -o lowerdir=l,timeout=` + strings.Repeat("9x", 50000) + ` M`, strings.Repeat("9x", 38) + `9..." is not a number of seconds`},
		{`fuse-overlay -o lowerdir=l,` + strings.Repeat("x", 100000) + ` M`, `unknown option "` + strings.Repeat("x", 77) + `...": --help`},
		{`fuse-overlay --forground -o lowerdir=l M`, `unknown flag "--forground"; the nearest known one is --foreground`},
		{`fuse-overlay -o lowerdir=l,cpu_idle=1 M`, `option cpu_idle: "1" is none of auto, poll and sleep`},
		{`fuse-overlay -o lowerdir=l,disable=spin:fast M`,
			`option disable: "fast" is none of spin, samples, unlisted, second_thread, prefetch, direct_io`},
		{`fuse-overlay -o lowerdir=l,disable=spin: M`, `option disable: "" is none of spin, samples`},
		{`fuse-overlay -o lowerdir=l,io=fast M`, `option io: "fast" is none of auto, cached and passthrough`},
		{`fuse-overlay -o lowerdir=l,io=passthrough,writeback=1 M`, "io=passthrough and writeback=1 exclude each other"},
		{`fuse-overlayfs -o lowerdir=l,uidmapping=0:1 M`, `option uidmapping: "0:1" is not made of triplets DISK:SHOWN:LENGTH`},
		{`fuse-overlayfs -o lowerdir=l,gidmapping=::0:1:1 M`, `option gidmapping: "::0:1:1" is not made of triplets`},
		{`fuse-overlayfs -o lowerdir=l,uidmapping=0:-1:1 M`, `option uidmapping: "-1" is not a number from 0 to 4294967295`},
		{`fuse-overlayfs -o lowerdir=l,uidmapping=0:1:0 M`, "option uidmapping: 0:1:0: the length is 0"},
		{`fuse-overlayfs -o lowerdir=l,uidmapping=0:1:4294967295 M`, "option uidmapping: 0:1:4294967295: goes beyond the largest id"},
		{`fuse-overlayfs -o lowerdir=l,gidmapping=0:0:10:20:9:5 M`, "option gidmapping: 20:9:5: overlaps another range"},
		{`fuse-overlayfs -o lowerdir=l,squash_to_uid=root M`, `option squash_to_uid: "root" is not an id`},
		{`fuse-overlay -o lowerdir=l,squash_to_gid=4294967295 M`, `option squash_to_gid: "4294967295" is not an id`},
		{`fuse-overlay -o lowerdir=l,redirect_dir=nofollow,metacopy=on M`, "conflicting options: metacopy=on,redirect_dir=nofollow"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,metacopy=on,redirect_dir=off M`, "conflicting options: metacopy=on,redirect_dir=off"},
		{`fuse-overlay -o lowerdir=l,userxattr,redirect_dir=follow M`, "conflicting options: userxattr,redirect_dir=follow"},
		{`fuse-overlay -o lowerdir=l,userxattr,metacopy=on M`, "conflicting options: userxattr,metacopy=on"},
		{`fuse-overlay -o lowerdir=l,nfs_export=on M`, "option nfs_export: on is not possible"},
		{`fuse-overlay -o lowerdir=l,noxattrs,redirect_dir=on M`, "conflicting options: noxattrs,redirect_dir=on"},
		{`fuse-overlay -o lowerdir=l,noxattrs,metacopy=on M`, "conflicting options: noxattrs,metacopy=on"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,noxattrs,index=on M`, "conflicting options: noxattrs,index=on"},
		{`fuse-overlay -o lowerdir=l,noxattrs,userxattr M`, "conflicting options: noxattrs,userxattr"},
		{`fuse-overlay -o lowerdir=l,upperdir=u,workdir=w,noxattrs,xattr_whiteouts M`, "conflicting options: noxattrs,xattr_whiteouts"},
		{`fuse-overlay -o lowerdir=l,metacopy=yes M`, `option metacopy: "yes" is none of on and off`},
		{`fuse-overlay -o lowerdir=l,index M`, "option index needs a value: index=on|off"},
		{`fuse-overlay -o lowerdir=l,xino=1 M`, `option xino: "1" is none of on, off and auto`},
		{`fuse-overlay -o lowerdir=l,uuid=0 M`, `option uuid: "0" is none of on, off, null and auto`},
		{`fuse-overlay -o lowerdir=l,verity=yes M`, `option verity: "yes" is none of on, off and require`},
		{`fuse-overlay -o lowerdir=l,userxattr=1 M`, "option userxattr takes no value"},
		{`fuse-overlay -o lowerdir=l,redirect_dir=yes M`, `option redirect_dir: "yes" is none of on, off, follow and nofollow`},
		{`fuse-overlayfs -o lowerdir=l,xattr_permissions=3 M`, `option xattr_permissions: "3" is none of 0, 1 and 2`},
		{`fuse-overlayfs -o lowerdir=l,xattr_permissions=2,noxattrs=1 M`, "conflicting options: noxattrs,xattr_permissions"},
	} {
		_, err := parsed(tt.line)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.300s\n   got: %v\n  want: %s", tt.line, err, tt.want)
		}
	}
}

// What follows from other options, and what is dropped without an upper.
func TestSettle(t *testing.T) {
	const upper = "upperdir=u,workdir=w,"
	for _, tt := range []struct {
		options   string
		redirects fs.Redirects
		notes     int
	}{
		{"", fs.RedirectsOff, 0},
		{upper + "metacopy=on", fs.RedirectsOn, 0},
		{"metacopy=on", fs.RedirectsOn, 0},
		{"metacopy=on,redirect_dir=off", fs.RedirectsOff, 0},
		{"metacopy=on,redirect_dir=follow", fs.RedirectsFollow, 0},
		{upper + "metacopy=off,redirect_dir=off", fs.RedirectsOff, 0},
		{upper + "userxattr", fs.RedirectsNoFollow, 0},
		{upper + "userxattr,redirect_dir=nofollow,metacopy=off,index=on", fs.RedirectsNoFollow, 0},
		{upper + "verity=require,metacopy=off,redirect_dir=off", fs.RedirectsOff, 0},
		{"volatile,index=on,uuid=on,xattr_whiteouts", fs.RedirectsOff, 4},
	} {
		r := &request{}
		for _, field := range mountargs.Fields("lowerdir=l," + tt.options) {
			if err := r.apply(field); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.resolveOptions(); err != nil {
			t.Errorf("%s: %v", tt.options, err)
		}
		o := &r.overlay
		if o.Redirects != tt.redirects || len(r.notes) != tt.notes {
			t.Errorf("%s: redirects %v, want %v; notes %q, want %d", tt.options, o.Redirects, tt.redirects, r.notes, tt.notes)
		}
		if o.Upper == "" && (o.Volatile || o.Features.Index || o.Features.XattrWhiteouts || o.Features.UUID == fs.UUIDOn) {
			t.Errorf("%s: not dropped: %+v", tt.options, o)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		options           string
		euid              int
		allowOther, roots bool
	}{
		{"lowerdir=l", 0, true, false},
		{"lowerdir=l", plainUser, false, false},
		{"lowerdir=l,allow_other", plainUser, true, false},
		{"lowerdir=l,allow_root", 0, false, true},
	} {
		r, err := parseRequest(mountargs.OwnName, []string{mountargs.OwnName, "-o", tt.options, "M"})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.complete(tt.euid); err != nil {
			t.Fatal(err)
		}
		if r.mount.AllowOther != tt.allowOther || r.allowRoot != tt.roots {
			t.Errorf("%s as %d: allow_other %v, allow_root %v", tt.options, tt.euid, r.mount.AllowOther, r.allowRoot)
		}
	}
}

func TestFiveHundredLayers(t *testing.T) {
	var layers []string
	for i := range 500 {
		layers = append(layers, fmt.Sprintf("/var/lib/containers/storage/overlay/l/LAYER%020d", i))
	}
	start := time.Now()
	r, err := parsed("fuse-overlay -o lowerdir=" + strings.Join(layers, ":") + " M")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.overlay.Lowers, ":"); got != strings.Join(layers, ":") {
		t.Errorf("layers came out as %s", got)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}
