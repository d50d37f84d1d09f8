#include "textflag.h"

#define SYS_rt_sigprocmask 14
#define SYS_clone 56
#define SYS_exit 60
#define SYS_futex 202
#define SIG_SETMASK 2
#define FUTEX_WAIT_PRIVATE 128

DATA allSignals<>(SB)/8, $0xffffffffffffffff
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func cloneSleeper(flags uint64, word *uint32, value uint64) int64
//
// A new thread inherits the blocked signals, so all are blocked around clone(2).
TEXT ·cloneSleeper(SB), NOSPLIT, $16-32
	MOVL $SIG_SETMASK, DI
	LEAQ allSignals<>(SB), SI
	LEAQ 0(SP), DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVQ word+8(FP), R12
	MOVQ value+16(FP), R13
	MOVQ flags+0(FP), DI
	XORL SI, SI // the stack is not used
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JEQ sleeper
	MOVQ AX, ret+24(FP)
	MOVL $SIG_SETMASK, DI
	LEAQ 0(SP), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	RET

sleeper:
	MOVQ R12, DI
	MOVL $FUTEX_WAIT_PRIVATE, SI
	MOVQ R13, DX
	XORL R10, R10 // no time limit
	MOVL $SYS_futex, AX
	SYSCALL
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	INT $3
