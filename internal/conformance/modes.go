package main

// A mode is what is mounted, and by which user.
type mode struct {
	name string
	// kernel mounts the kernel's overlayfs in place of the program.
	kernel bool
	// userns makes the user root of a user namespace.
	userns bool
	// plain makes a user without rights run the suite, and mount the program by fusermount3. Root
	// mounts the kernel's overlayfs.
	plain bool
	opts  []string
}

// modes are the columns of the report. The default of the program is writeback=1 from Linux 6.17
// on, and writeback=0 before. A user namespace may not use io=passthrough.
var modes = []mode{
	{name: "kernel", kernel: true},
	{name: "writeback=0", opts: []string{"writeback=0"}},
	{name: "writeback=1", opts: []string{"writeback=1"}},
	{name: "io=passthrough", opts: []string{"io=passthrough"}},
	{name: "userns-kernel", kernel: true, userns: true, opts: []string{"userxattr"}},
	{name: "userns", userns: true},
	{name: "plain-kernel", kernel: true, plain: true},
	{name: "plain", plain: true},
}

// plainUser is the uid and gid of the user of a plain mode. Every Debian names this user and group.
const plainUser = 65_534

// owner is the uid and gid, in the initial user namespace, of the user that runs the suite.
func (m mode) owner() int {
	switch {
	case m.userns:
		return firstSubID
	case m.plain:
		return plainUser
	}
	return 0
}

// beside returns the mode of the kernel's overlayfs with the same user as a mode of the program.
func (m mode) beside() mode {
	for _, k := range modes {
		if k.kernel && k.userns == m.userns && k.plain == m.plain {
			return k
		}
	}
	return mode{}
}

// modeNamed returns the mode of a name.
func modeNamed(name string) (mode, bool) {
	for _, m := range modes {
		if m.name == name {
			return m, true
		}
	}
	return mode{}, false
}
