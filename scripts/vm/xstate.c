/*
 * A library that user-mode Linux is started with (LD_PRELOAD). User-mode Linux keeps the floating
 * point state of its processes in 2696 bytes. On a CPU with AMX the state is larger, and the kernel
 * of the host accepts the whole state only: PTRACE_SETREGSET fails with EFAULT. This ptrace sets
 * the part over the state that the process has.
 *
 * It is linked without a C library, because that of user-mode Linux may be older than the host's.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Not on the stack, which is the small stack of a task of the user-mode kernel. */
static char state[65536];

static long set_state(pid_t pid, struct iovec *part)
{
	void *type = (void *)NT_X86_XSTATE;
	struct iovec whole = {state, sizeof state};

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, type, &whole))
		return -1;
	memcpy(state, part->iov_base, part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, type, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	long word;
	pid_t pid;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	switch (request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER: /* the system call stores the word, ptrace(3) returns it */
		return syscall(SYS_ptrace, request, pid, address, &word) ? -1 : word;
	case PTRACE_SETREGSET:
		if (address == (void *)NT_X86_XSTATE)
			return set_state(pid, data);
		break;
	default:
		break;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
