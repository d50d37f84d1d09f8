//go:build amd64 || arm64

package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"
)

// free are the calls that are allowed with all arguments, on all architectures. The others are in
// [limited], and in a list of each architecture.
var free = [][]uint32{
	{ // memory, threads, time and signals of the process: the Go runtime
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_FUTEX, unix.SYS_SCHED_YIELD,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
		unix.SYS_GETTIMEOFDAY, unix.SYS_GETCPU, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN,
		unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RSEQ,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_MEMBARRIER, unix.SYS_GETRANDOM, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
		unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
	},
	{ // what the process is
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID,
		unix.SYS_GETEGID, unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_UNAME, unix.SYS_GETRLIMIT, unix.SYS_CAPGET,
	},
	{ // rights that it gives up
		unix.SYS_CAPSET, unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_RESTRICT_SELF,
	},
	{ // descriptors
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
		unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_LSEEK, unix.SYS_FLOCK,
		unix.SYS_MEMFD_CREATE,
	},
	{ // names
		unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
		unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT,
		unix.SYS_RENAMEAT2, unix.SYS_GETDENTS64, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	},
	{ // attributes
		unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
		unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	},
	{ // extended attributes
		unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, unix.SYS_GETXATTRAT,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
		unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_LISTXATTRAT,
		unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	},
	{ // data
		unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS,
		unix.SYS_SYNC_FILE_RANGE, unix.SYS_COPY_FILE_RANGE,
	},
	{ // clients of the control socket, which listens already
		unix.SYS_ACCEPT4, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SHUTDOWN,
	},
	{ // the end of the helper process
		unix.SYS_WAIT4,
	},
}

// Requests of ioctl(2), but those of x/sys/unix.
const (
	fsGetXattr    = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr    = 0x401c5820 // FS_IOC_FSSETXATTR
	measureVerity = 0xc0046686 // FS_IOC_MEASURE_VERITY
	backingOpen   = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	backingClose  = 0x4004e502 // FUSE_DEV_IOC_BACKING_CLOSE
)

// setVMA is PR_SET_VMA of prctl(2), by which the Go runtime names its memory.
const setVMA = 0x53564d41

// Flags of clone(2) that make a thread of this process, and those that a thread does not have.
const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	newFlags    = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_VFORK | unix.CLONE_PTRACE
)

// limited returns the calls that are allowed with some arguments alone.
func limited(keep Rights, refuse uint32) []call {
	list := []call{
		{unix.SYS_MMAP, withBits(refuse, 2, unix.PROT_EXEC, 0)},
		{unix.SYS_MPROTECT, withBits(refuse, 2, unix.PROT_EXEC, 0)},
		{unix.SYS_CLONE, withBits(refuse, 0, threadFlags|newFlags, threadFlags)},
		// The filter cannot read the flags. With this error callers use clone(2).
		{unix.SYS_CLONE3, always(resultErrno | uint32(unix.ENOSYS))},
		{unix.SYS_TGKILL, oneOf(refuse, 0, pid())},
		{unix.SYS_PRCTL, oneOf(refuse, 0, setVMA)},
		{unix.SYS_PRLIMIT64, withoutPointer(refuse, 2)},
		{unix.SYS_FCNTL, oneOf(refuse, 1, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_OFD_GETLK, unix.F_OFD_SETLK)},
		{unix.SYS_IOCTL, oneOf(refuse, 1, unix.FICLONE, unix.FS_IOC_GETFLAGS, unix.FS_IOC_SETFLAGS, fsGetXattr, fsSetXattr,
			measureVerity, backingOpen, backingClose)},
	}
	if keep.ReconnectFD >= 0 {
		list = append(list, call{unix.SYS_CONNECT, oneOf(refuse, 0, uint32(keep.ReconnectFD))})
	}
	return list
}

// calls returns all calls that are allowed, sorted.
func calls(keep Rights, refuse uint32) []call {
	list := limited(keep, refuse)
	for _, numbers := range append(free, freeHere, freeInRaceBuilds) {
		for _, n := range numbers {
			list = append(list, call{number: n})
		}
	}
	slices.SortFunc(list, func(a, b call) int { return int(a.number) - int(b.number) })
	return list
}
