package sandbox

import "golang.org/x/sys/unix"

// auditArch is this architecture in struct seccomp_data.
const auditArch = unix.AUDIT_ARCH_AARCH64

// freeHere are calls that only this architecture has, or that have another name elsewhere.
var freeHere = []uint32{unix.SYS_FSTATAT}
