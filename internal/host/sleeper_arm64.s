#include "textflag.h"

#define SYS_exit 93
#define SYS_futex 98
#define SYS_rt_sigprocmask 135
#define SYS_clone 220
#define SIG_SETMASK 2
#define FUTEX_WAIT_PRIVATE 128

DATA allSignals<>(SB)/8, $0xffffffffffffffff
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func cloneSleeper(flags uint64, word *uint32, value uint64) int64
//
// A new thread inherits the blocked signals, so all are blocked around clone(2).
TEXT ·cloneSleeper(SB), NOSPLIT, $16-32
	MOVD $SIG_SETMASK, R0
	MOVD $allSignals<>(SB), R1
	MOVD $old-8(SP), R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC
	MOVD word+8(FP), R9
	MOVD value+16(FP), R10
	MOVD flags+0(FP), R0
	MOVD ZR, R1 // the stack is not used
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD $SYS_clone, R8
	SVC
	CBZ R0, sleeper
	MOVD R0, ret+24(FP)
	MOVD $SIG_SETMASK, R0
	MOVD $old-8(SP), R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC
	RET

sleeper:
	MOVD R9, R0
	MOVD $FUTEX_WAIT_PRIVATE, R1
	MOVD R10, R2
	MOVD ZR, R3 // no time limit
	MOVD $SYS_futex, R8
	SVC
	MOVD ZR, R0
	MOVD $SYS_exit, R8
	SVC
	BRK
