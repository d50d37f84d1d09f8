package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

// option is a row of the one table of -o options.
type option struct {
	// name is the text before the "=". A "*" at its end matches anything.
	name string
	// value is how the usage writes the value, and whether there is one.
	value value
	// set stores the value in the request.
	set setter
	// help is for the usage, which lists options without it in one line: they have no effect.
	help string
}

// setter stores a value in the request. The value has its backslashes, and is bare if none was
// given.
type setter func(r *request, value string) error

// bare is the value of an option without a value: "noxattrs" is "noxattrs=1".
const bare = "1"

// value is how the usage writes the value of an option, and whether it takes one.
type value struct {
	name  string
	taken valueTaken
}

type valueTaken int

const (
	never valueTaken = iota
	always
	maybe
)

var noValue = value{}

func needs(name string) value { return value{name, always} }
func may(name string) value   { return value{name, maybe} }

// optionGroup is one heading of the usage.
type optionGroup struct {
	heading string
	options []option
}

// optionTable has every known option. An option is accepted for one of three reasons: it has an
// effect, it stands for what is done anyway, or its effect would not be missed. All others are
// refused by name, so no caller relies on what is missing.
var optionTable = []optionGroup{
	{"layers", []option{
		{"lowerdir", needs("DIR[:DIR]...[::DIR]..."), setLowers, "read-only layers, the topmost first, and after :: data-only ones; \\: is a colon, \\, a comma"},
		{"lowerdir+", needs("DIR"), addLower, "one more read-only layer, below the others"},
		{"datadir+", needs("DIR"), addData, "one more data-only layer, below all others"},
		{"upperdir", needs("DIR"), text(func(r *request) *string { return &r.overlay.Upper }), "the layer that takes the changes; without one the mount is read-only"},
		{"workdir", needs("DIR"), text(func(r *request) *string { return &r.overlay.Work }), "a directory on the file system of upperdir; made if missing"},
	}},
	{"behaviour", []option{
		{"volatile", noValue, flag(func(r *request) *bool { return &r.overlay.Volatile }), "never wait for the disk; a power cut may damage upperdir"},
		{"fsync", may("0|1"), off(func(r *request) *bool { return &r.overlay.NoFsync }), "0: fsync by applications does nothing"},
		{"writeback", may("0|1"), setWriteback, "1: the kernel collects small writes, and requests attributes after each close (default: where data would be lost without)"},
		{"cache_inodes", needs("NUMBER"), setCacheInodes, "how many unused inodes the kernel may keep, and so the memory of the mount (default: as many as it wants)"},
		{"io", needs("auto|cached|passthrough"), setIO, "passthrough: data goes to the layer's files directly, opens cost a request (root)"},
		{"cpu_idle", needs("auto|poll|sleep"), setCPUIdle, "poll: while requests come fast, idle CPUs of the machine poll in place of sleeping (root)"},
		{"timeout", needs("SECONDS"), setTimeout, "how long the kernel may remember names and attributes (default: without end); 0: layers may change"},
		{"max_write", needs("BYTES"), setMaxWrite, "the largest single read or write (default: the largest the kernel takes)"},
		{"noacl", noValue, flag(func(r *request) *bool { return &r.overlay.NoACL }), "no POSIX ACLs"},
		{"noxattrs", may("0|1"), on(func(r *request) *bool { return &r.overlay.NoXattrs }), "no extended attributes"},
		{"static_nlink", noValue, flag(func(r *request) *bool { return &r.overlay.StaticNlink }), "every directory has a link count of 1"},
		{"disable", needs("NAME[:NAME]..."), setDisabled, "turn optimisations off, for debugging: spin, samples, unlisted, second_thread, prefetch, direct_io, quiet_xattrs"},
		{"supervise", noValue, flag(func(r *request) *bool { return &r.supervise }), "another process takes over the mount when the daemon dies or is upgraded (Linux 6.9)"},
		{"control", needs("on|off"), offOrOn(func(r *request) *bool { return &r.noControl }), "off: no control socket, by which fuse-overlay stats reads the numbers of the daemon (default: on)"},
		{"sandbox", needs("on|off"), offOrOn(func(r *request) *bool { return &r.noSandbox }), "off: the daemon keeps all its rights, for debugging (default: on)"},
		{"log", needs("FILE"), text(func(r *request) *string { return &r.logFile }), "append the log to FILE"},
	}},
	{"as in the kernel's overlayfs", []option{
		{"redirect_dir", needs("on|off|follow|nofollow"), setRedirects, "on: directories with lower parts can be renamed; otherwise EXDEV. nofollow: those that were are refused"},
		{"metacopy", needs("on|off"), onOrOff(feature(func(f *fs.Features) *bool { return &f.MetaCopy })), "on: a change of attributes does not copy data up"},
		{"index", needs("on|off"), onOrOff(feature(func(f *fs.Features) *bool { return &f.Index })), "on: linked lower files stay linked when they are copied up"},
		{"xino", needs("on|off|auto"), setXino, "inode numbers where layers lie on several file systems; as on, whatever is given"},
		{"uuid", needs("on|off|null|auto"), setUUID, "on: upperdir gets a number of its own (auto: a new one); off: file handles are kept without that of their file system"},
		{"verity", needs("on|off|require"), setVerity, "digests of data that lies in lower layers"},
		{"nfs_export", needs("on|off"), onOrOff(func(r *request) *bool { return &r.nfsExport }), ""},
		{"userxattr", noValue, flag(feature(func(f *fs.Features) *bool { return &f.Names.UserOnly })), "the extended attributes of the overlay are user.overlay.* only"},
		{"xattr_whiteouts", noValue, flag(feature(func(f *fs.Features) *bool { return &f.XattrWhiteouts })), "where devices cannot be made, whiteouts are attributes"},
	}},
	{"ids and permissions", []option{
		{"uidmapping", needs("DISK:SHOWN:LENGTH[:...]"), mapping(func(m *owner.IDs) *owner.Mapping { return &m.UIDs }), "user ids of the layers are shown as others; those left out are the overflow id"},
		{"gidmapping", needs("DISK:SHOWN:LENGTH[:...]"), mapping(func(m *owner.IDs) *owner.Mapping { return &m.GIDs }), "the same for groups"},
		{"squash_to_root", noValue, squashToRoot, "everything belongs to user and group 0"},
		{"squash_to_uid", needs("UID"), squash(func(m *owner.IDs) *owner.Squash { return &m.UID }), "everything belongs to one user"},
		{"squash_to_gid", needs("GID"), squash(func(m *owner.IDs) *owner.Squash { return &m.GID }), "everything belongs to one group"},
		{"xattr_permissions", needs("0|1|2"), setPermissions, "owner, mode and type are kept in an attribute: 1: security.fuseoverlayfs.override_stat, 2: user.containers.override_stat"},
		{"ino32_t", may("0|1"), on(func(r *request) *bool { return &r.overlay.SmallInodes }), "inode numbers of at most 32 bits"},
	}},
	{"accepted because it is so anyway", []option{
		{"default_permissions", noValue, noEffect, "the kernel checks permissions"},
		{"threaded", may("0|1"), noEffect, ""},
		{"fast_ino", may("0|1"), noEffect, ""},
	}},
	{"as in mount(8)", []option{
		{"ro", noValue, mountFlags(unix.MS_RDONLY, 0), "read-only"},
		{"rw", noValue, mountFlags(0, unix.MS_RDONLY), "read-write, if there is an upperdir"},
		{"nodev", noValue, mountFlags(unix.MS_NODEV, 0), "device files do not work"},
		{"dev", noValue, mountFlags(0, unix.MS_NODEV), ""},
		{"nosuid", noValue, mountFlags(unix.MS_NOSUID, 0), "set-user-id bits do not work"},
		{"suid", noValue, mountFlags(0, unix.MS_NOSUID), ""},
		{"noexec", noValue, mountFlags(unix.MS_NOEXEC, 0), "nothing can be executed"},
		{"exec", noValue, mountFlags(0, unix.MS_NOEXEC), ""},
		{"noatime", noValue, mountFlags(unix.MS_NOATIME, 0), ""},
		{"atime", noValue, mountFlags(0, unix.MS_NOATIME), ""},
		{"relatime", noValue, mountFlags(unix.MS_RELATIME, unix.MS_NOATIME|unix.MS_STRICTATIME), ""},
		{"strictatime", noValue, mountFlags(unix.MS_STRICTATIME, unix.MS_NOATIME|unix.MS_RELATIME), ""},
		{"nodiratime", noValue, mountFlags(unix.MS_NODIRATIME, 0), ""},
		{"diratime", noValue, mountFlags(0, unix.MS_NODIRATIME), ""},
		{"lazytime", noValue, mountFlags(unix.MS_LAZYTIME, 0), ""},
		{"sync", noValue, mountFlags(unix.MS_SYNCHRONOUS, 0), ""},
		{"async", noValue, mountFlags(0, unix.MS_SYNCHRONOUS), ""},
		{"dirsync", noValue, mountFlags(unix.MS_DIRSYNC, 0), ""},
		{"allow_other", noValue, flag(func(r *request) *bool { return &r.mount.AllowOther }), "all users may use the mount (default when mounted by root)"},
		{"allow_root", noValue, flag(func(r *request) *bool { return &r.allowRoot }), "only root may use the mount; not for plain users"},
		{"fsname", needs("NAME"), text(func(r *request) *string { return &r.mount.Source }), "the source shown in the mount table"},
		{"subtype", needs("NAME"), text(func(r *request) *string { return &r.mount.Type }), "the type shown there, after \"fuse.\""},
		{"context", needs("LABEL"), text(func(r *request) *string { return &r.mount.Context }), "the SELinux label of everything, where the host has SELinux"},
		{"private", noValue, noEffect, ""},
		{remountOption, noValue, noEffect, "changes flags such as ro of a mount that exists; all other options are ignored"},
		{"user", may("NAME"), noEffect, ""},
		{"nouser", noValue, noEffect, ""},
		{"users", noValue, noEffect, ""},
		{"owner", noValue, noEffect, ""},
		{"group", noValue, noEffect, ""},
		{"nofail", noValue, noEffect, ""},
		{"_netdev", noValue, noEffect, ""},
		{"x-*", may("ANY"), noEffect, ""},
	}},
}

// apply applies one field of an option list to the request.
func (r *request) apply(field string) error {
	name, value, given := strings.Cut(field, "=")
	o := findOption(name)
	switch {
	case o == nil:
		return errUnknown
	case o.value.taken == never && given:
		return fmt.Errorf("option %s takes no value, but was given %s", name, quoted(value))
	case o.value.taken == always && value == "":
		return fmt.Errorf("option %s needs a value: %s=%s", name, name, o.value.name)
	}
	if !given {
		value = bare
	}
	if err := o.set(r, value); err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	if r.given == nil {
		r.given = map[string]bool{}
	}
	r.given[name] = true
	return nil
}

func findOption(name string) *option {
	for _, group := range optionTable {
		for i := range group.options {
			o := &group.options[i]
			prefix, any := strings.CutSuffix(o.name, "*")
			if o.name == name || any && strings.HasPrefix(name, prefix) {
				return o
			}
		}
	}
	return nil
}

// optionNames returns the names with which an unknown one is compared.
func optionNames() []string {
	var names []string
	for _, group := range optionTable {
		for _, o := range group.options {
			if !strings.HasSuffix(o.name, "*") {
				names = append(names, o.name)
			}
		}
	}
	return names
}

// errUnsupported is the error of an option that is known and not implemented.
var errUnsupported = errors.New("not supported by this version")

// errUnknown is the error of an option that is not in the table.
var errUnknown = errors.New("unknown option")
