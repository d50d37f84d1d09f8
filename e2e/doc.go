// Package e2e drives the built fuse-overlay binary through real mounts and compares what it shows, and what it leaves
// in the layers, with the contract and with the kernel's own overlayfs.
//
// It runs as root (go test ./e2e/ -timeout 30m) and starts itself again as an unprivileged user, inside a user
// namespace and through fusermount3, and for containerd and docker as root in namespaces of its own. A missing tool, a
// leaked mount and a leaked daemon fail the run.
//
//	FUSE_OVERLAY_BIN=PATH       the binary to test, instead of building ./cmd/fuse-overlay
//	FUSE_OVERLAY_ORACLE=kernel  mount the kernel's overlayfs in place of the binary: shows that a test is right
//	FUSE_OVERLAY_CACHE=DIR      where the debootstrap root is kept between runs
//	FUSE_OVERLAY_SEED=N         first seed of the differential test; FUSE_OVERLAY_SEQS=N: how many sequences
//	FUSE_OVERLAY_KEEP=1         leave the folders of the run behind
//
// The package does not look inside the program: only the command line, the mount point, the layers and the log.
package e2e
