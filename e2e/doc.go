// Package e2e holds the end-to-end tests: they drive the built fuse-overlay binary through real
// mounts and compare what it shows, and what it leaves in the layers, with the contract and with
// the kernel's own overlayfs. Each package below answers one question:
//
//	view          what does the merged tree show, and how do operations change it?
//	posix         does each system call keep its contract: errors, times, rights?
//	format        what lies on disk, and does the kernel's overlayfs read it?
//	differential  do random operations have the results of the kernel's overlayfs?
//	io            is each byte of a file what was written, however the kernel handles it?
//	rights        which rights do users have, and which has the owner of a layer not?
//	attacks       what can hostile layers, users and processes not do?
//	faults        what happens when a layer, the daemon or the machine fails?
//	kills         what does a SIGKILL of the daemon under load leave?
//	soak          does a daemon that works for an hour need more and more?
//	lifetime      when do mount and daemon begin and end, and which mount owns an upper?
//	changes       does fuse-overlay diff report what was done, and write it as a layer?
//	cost          how many requests, descriptors and cached inodes does it take?
//	command       what does a user type and read?
//	documents     are the documents true, and do their commands work?
//	commands      what do the commands beside mount print and do?
//	engines       does the program work below podman, docker, containerd and dpkg?
//	packages      do packages install, run and go away?
//
//	harness       mounts, modes, assertions, leak checks: what all of them use
//	operation     one operation as a value, its result as a text: for differential, format
//	fsx           random operations on the data of files: for io
//	disklog       what did a block device get, and what is on it after a power cut: for faults
//
// The tests run as root, one package at a time: make e2e, or go test -p 1 ./e2e/... They start
// themselves again as an unprivileged user, inside a user namespace and through fusermount3, and
// for containerd and docker as root in namespaces of their own. A missing tool, a leaked mount and
// a leaked daemon fail the run.
//
//	FUSE_OVERLAY_BIN=PATH       the binary to test, instead of building ./cmd/fuse-overlay
//	FUSE_OVERLAY_ORACLE=kernel  mount the kernel's overlayfs in place of the binary
//	FUSE_OVERLAY_CACHE=DIR      where the debootstrap root is kept between runs
//	FUSE_OVERLAY_PACKAGES=DIR   the packages to test, which make test-packages builds
//	FUSE_OVERLAY_SEED=N         first seed of the differential test
//	FUSE_OVERLAY_SEQS=N         number of its sequences
//	FUSE_OVERLAY_FSX_OPS=N      number of operations of TestFsx
//	FUSE_OVERLAY_FSX_ROUND=N    the only round of it that runs, to repeat a failure
//	FUSE_OVERLAY_CUTS=N         number of cuts of a disk for each scenario of TestPowerCutOfADisk
//	FUSE_OVERLAY_ATTACKS=N      N times as many attempts in the tests of attacks
//	FUSE_OVERLAY_NAMES=N        number of names of TestLittleMemory
//	FUSE_OVERLAY_KILLS=N        number of SIGKILLs of TestKills in each mode: make kills
//	FUSE_OVERLAY_SOAK=1h        how long TestSoak works: make load
//	FUSE_OVERLAY_RACED=1        run only the tests that call harness.Raced: make races
//	FUSE_OVERLAY_CLIENTS=1      run also the tests of clients that only make test-clients has
//	FUSE_OVERLAY_TRIED=1        print the table of clients, and fail if it has a gap
//	FUSE_OVERLAY_UPPERS="DIR.." folders on other file systems, for uppers: TestUppersOfOtherTypes
//	FUSE_OVERLAY_NEED_VERITY=1  fail if the kernel has no fs-verity
//	FUSE_OVERLAY_SELINUX_POLICY=FILE
//	                            a compiled policy, which TestSELinux loads on a throwaway machine
//	FUSE_OVERLAY_KEEP=1         leave the folders of the run behind
//
// The packages do not look inside the program: only the command line, the mount point, the layers
// and the log.
package e2e
