// Package kills ends the daemon by SIGKILL while several processes change the mount, and checks
// what is left: in the mount of a new daemon, in the kernel's overlayfs, and on disk.
//
// Each process works on names of its own, in directories that all share. It makes one operation
// after the other, and each follows from a seed and from what the process has done before. So the
// test knows which operations have ended, and which one was in flight.
//
// What a kill of the daemon may do, while the machine runs on:
//
//   - An operation that has returned is done. An operation in flight is done or not done. No other
//     object differs.
//   - Data that write(2) has written is in the file. With writeback=1, and for what a mapping has
//     changed, it is there after fsync(2) or msync(2), and after a close(2) before the kill. Until
//     then each byte of the file is one that it had at some time since the last of these calls, or
//     zero behind the end that the file had.
//   - After the kill, close(2) may return 0 though the data is lost, if another process closes the
//     same file: Linux reports such an error to one close(2) only, and to each fsync(2).
//   - A write in flight may be there in part: each byte is as above.
//   - A copy-up is there whole or not at all.
//   - The upper has no name but those of users, and whiteouts of these.
//   - What is left in the work directory is removed by the next mount.
package kills
