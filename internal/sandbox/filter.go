//go:build amd64 || arm64

package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations, flags and results of seccomp(2) (linux/seccomp.h).
const (
	setModeFilter = 1
	flagTSync     = 1 << 0
	flagSpecAllow = 1 << 2

	resultAllow = 0x7fff0000
	resultErrno = 0x00050000
	resultTrap  = 0x00030000
	resultKill  = 0x80000000
)

// Offsets in struct seccomp_data. An argument has 64 bits, the low half first on these
// architectures.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// A call is a system call by its number, and which of its uses are allowed.
type call struct {
	number uint32
	// allowed are the instructions that allow some arguments only. They end with a result for all
	// others. nil: every use is allowed.
	allowed []unix.SockFilter
}

// assemble returns the filter program. It is part of each mount, so the instructions are written
// without an assembler, which takes some milliseconds in a process that has just started.
func assemble(keep Rights) ([]unix.SockFilter, error) {
	refuse := resultErrno | uint32(unix.EPERM)
	if keep.Trap {
		refuse = resultTrap
	}
	// A program may make calls of another architecture too: by int 0x80 on amd64, and with this bit
	// the numbers of the x32 ABI.
	program := append(make([]unix.SockFilter, 0, 1024),
		load(offsetArch),
		jumpIf(unix.BPF_JEQ, auditArch, 1, 0),
		result(resultKill),
		load(offsetNumber),
		jumpIf(unix.BPF_JGE, otherABI, 0, 1),
		result(resultKill),
	)
	return search(program, calls(keep, refuse), refuse), nil
}

// load loads 4 bytes of struct seccomp_data.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// jumpIf skips as many instructions, by whether what was loaded compares so with value.
func jumpIf(comparison uint16, value uint32, skipTrue, skipFalse uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | comparison, Jt: skipTrue, Jf: skipFalse, K: value}
}

// result ends the filter.
func result(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

// otherABI is the first number that is no call of this ABI.
const otherABI = 0x40000000

// search appends a binary search for the number of the call. Precondition: list is sorted.
func search(program []unix.SockFilter, list []call, refuse uint32) []unix.SockFilter {
	if len(list) == 1 {
		program = append(program, jumpIf(unix.BPF_JEQ, list[0].number, 1, 0), result(refuse))
		if list[0].allowed == nil {
			return append(program, result(resultAllow))
		}
		return append(program, list[0].allowed...)
	}
	half := len(list) / 2
	program = append(program,
		jumpIf(unix.BPF_JGE, list[half].number, 0, 1),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA})
	jump := len(program) - 1
	program = search(program, list[:half], refuse)
	program[jump].K = uint32(len(program) - jump - 1)
	return search(program, list[half:], refuse)
}

// setFilter installs a filter for all threads of the process.
func setFilter(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// SPEC_ALLOW keeps the kernel from slowing all calls of the process down against attacks by
	// speculative execution (Linux 4.17). The daemon runs no code of others.
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flagTSync|flagSpecAllow, uintptr(unsafe.Pointer(&program)))
	if errno == unix.EINVAL {
		thread, _, errno = unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flagTSync, uintptr(unsafe.Pointer(&program)))
	}
	switch {
	case errno != 0:
		return errno
	case thread != 0: // has a filter of its own
		return unix.ESRCH
	}
	return nil
}

// argument loads one half of an argument.
func argument(i int, half uint32) unix.SockFilter {
	return load(uint32(offsetArgs + 8*i + 4*int(half)))
}

const (
	low  = 0
	high = 1
)

// oneOf allows a call whose argument i, of 32 bits, is one of some values.
func oneOf(refuse uint32, i int, values ...uint32) []unix.SockFilter {
	program := []unix.SockFilter{argument(i, low)}
	for n, v := range values {
		program = append(program, jumpIf(unix.BPF_JEQ, v, uint8(len(values)-n), 0))
	}
	return append(program, result(refuse), result(resultAllow))
}

// withBits allows a call whose argument i has, of the bits in mask, exactly those in bits.
func withBits(refuse uint32, i int, mask, bits uint32) []unix.SockFilter {
	return []unix.SockFilter{
		argument(i, low),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask},
		jumpIf(unix.BPF_JEQ, bits, 1, 0),
		result(refuse),
		result(resultAllow),
	}
}

// withoutPointer allows a call whose argument i is NULL.
func withoutPointer(refuse uint32, i int) []unix.SockFilter {
	return []unix.SockFilter{
		argument(i, low),
		jumpIf(unix.BPF_JEQ, 0, 0, 3),
		argument(i, high),
		jumpIf(unix.BPF_JEQ, 0, 0, 1),
		result(resultAllow),
		result(refuse),
	}
}

// always gives a call one result.
func always(value uint32) []unix.SockFilter { return []unix.SockFilter{result(value)} }
