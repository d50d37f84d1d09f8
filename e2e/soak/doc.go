// Package soak tests whether a daemon that works for a long time needs more and more: descriptors,
// goroutines, threads, memory, or time for a request. Builds, installations of packages, deletions,
// renames, listings of large directories, other mounts and clients of the control socket work at
// the same time. The test samples what the daemon uses, and compares the last third of the run with
// the two before.
package soak
