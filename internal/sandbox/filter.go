//go:build amd64 || arm64

package sandbox

import (
	"unsafe"

	"golang.org/x/net/bpf"
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
	allowed []bpf.Instruction
}

// assemble returns the filter program.
func assemble(keep Rights) ([]unix.SockFilter, error) {
	refuse := resultErrno | uint32(unix.EPERM)
	if keep.Trap {
		refuse = resultTrap
	}
	// A program may make calls of another architecture too: by int 0x80 on amd64, and with this bit
	// the numbers of the x32 ABI.
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: resultKill},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: otherABI, SkipTrue: 1},
		bpf.RetConstant{Val: resultKill},
	}
	raw, err := bpf.Assemble(append(program, search(calls(keep, refuse), refuse)...))
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// otherABI is the first number that is no call of this ABI.
const otherABI = 0x40000000

// search returns a binary search for the number of the call. Precondition: list is sorted.
func search(list []call, refuse uint32) []bpf.Instruction {
	if len(list) == 1 {
		body := list[0].allowed
		if body == nil {
			body = []bpf.Instruction{bpf.RetConstant{Val: resultAllow}}
		}
		return append([]bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: list[0].number, SkipTrue: 1},
			bpf.RetConstant{Val: refuse},
		}, body...)
	}
	half := len(list) / 2
	lower, upper := search(list[:half], refuse), search(list[half:], refuse)
	program := []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: list[half].number, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(lower))},
	}
	return append(append(program, lower...), upper...)
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
func argument(i int, half uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: uint32(offsetArgs + 8*i + 4*int(half)), Size: 4}
}

const (
	low  = 0
	high = 1
)

// oneOf allows a call whose argument i, of 32 bits, is one of some values.
func oneOf(refuse uint32, i int, values ...uint32) []bpf.Instruction {
	program := []bpf.Instruction{argument(i, low)}
	for n, v := range values {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - n)})
	}
	return append(program, bpf.RetConstant{Val: refuse}, bpf.RetConstant{Val: resultAllow})
}

// withBits allows a call whose argument i has, of the bits in mask, exactly those in bits.
func withBits(refuse uint32, i int, mask, bits uint32) []bpf.Instruction {
	return []bpf.Instruction{
		argument(i, low),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: bits, SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		bpf.RetConstant{Val: resultAllow},
	}
}

// withoutPointer allows a call whose argument i is NULL.
func withoutPointer(refuse uint32, i int) []bpf.Instruction {
	return []bpf.Instruction{
		argument(i, low),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 3},
		argument(i, high),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: resultAllow},
		bpf.RetConstant{Val: refuse},
	}
}

// always gives a call one result.
func always(result uint32) []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: result}} }
