// Package mounts answers which mounts of this program the caller sees, which process serves each of
// them, and unmounts them.
//
// # What can be trusted
//
// Root uses this package among processes of other users, so each fact has an origin that those
// users cannot choose, or is shown as what the mount's own user has claimed:
//
//   - The mount table is the kernel's: mount point, type, user_id, read-only. Only a process with
//     CAP_SYS_ADMIN can mount with another user's user_id.
//   - Every user may add lines to /proc/locks, by byte-range locks on a file of its own. So a
//     Holder there counts only if the process that it names has an flock on the same file, and runs
//     as the user of the mount. The kernel itself writes the process of an flock.
//   - The FUSE connection in /proc/PID/fdinfo is the kernel's.
//   - Every process chooses its name and its command line. They count only for processes of the
//     mount's user. This package accesses no file by a path out of them, which could lead into a
//     mount that hangs. fuse-overlay diff opens such paths, but only for the mount's own user: root
//     could be led to any directory.
//
// A daemon that hangs with a request keeps the process that waits for it from ending. So a mount
// gets a request only if no lock and no connection shows its daemon, and if it is a mount of the
// caller or of root.
//
// So the user of a mount can forge which of the user's own processes serves it, and which layers it
// has. No other user can, apart from root.
package mounts
