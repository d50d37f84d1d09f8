package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities (capabilities(7)), one bit for each.
type Set uint64

// SetOf returns the set of some capabilities (unix.CAP_...).
func SetOf(capabilities ...int) (s Set) {
	for _, c := range capabilities {
		s |= 1 << c
	}
	return s
}

// dropCapabilities leaves the threads of this process no capability but those in keep. The ambient
// set loses what the inheritable one loses (cap_capset). The bounding set stays as it is: with
// no_new_privs an execve(2) adds no capability, and the filter refuses execve(2).
func dropCapabilities(keep Set) (Set, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, err
	}
	had := Set(data[0].Permitted) | Set(data[1].Permitted)<<32
	inherits := data[0].Inheritable | data[1].Inheritable
	left := had & keep
	if left == had && inherits == 0 {
		return left, nil
	}
	for i := range data {
		word := uint32(left >> (32 * i))
		data[i] = unix.CapUserData{Effective: word, Permitted: word}
	}
	err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0, 0)
	if err != nil {
		return had, err
	}
	return left, nil
}
