package sys

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// mayKeepSuid reports whether the calling thread has CAP_FSETID.
func mayKeepSuid(t *testing.T) bool {
	t.Helper()
	var data [2]unix.CapUserData
	must(t, unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]))
	return data[0].Effective&(1<<unix.CAP_FSETID) != 0
}

// A backing is registered without the right to keep suid. Afterwards the thread has the right
// again, also after an error.
func TestBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := MemoryFile()
	must(t, err)
	defer f.Close()
	for _, answer := range []unix.Errno{0, unix.ELOOP} {
		err := f.Back(func(fd int32) unix.Errno {
			if fd != int32(f.fd) {
				t.Errorf("descriptor %d, want %d", fd, f.fd)
			}
			if mayKeepSuid(t) {
				t.Error("registered with CAP_FSETID")
			}
			return answer
		})
		if answer == 0 {
			want(t, "taken", err, nil)
		} else {
			want(t, "refused", err, answer)
		}
		if !mayKeepSuid(t) {
			t.Fatal("the thread goes on without CAP_FSETID")
		}
	}
	SetFault(func(Op) error { return unix.EIO })
	defer SetFault(nil)
	want(t, "failing", f.Back(func(int32) unix.Errno { t.Error("registered"); return 0 }), unix.EIO)
}

func TestMemoryFile(t *testing.T) {
	f, err := MemoryFile()
	must(t, err)
	defer f.Close()
	_, err = f.Pwrite([]byte("text"), 0)
	must(t, err)
	var st Stat
	must(t, f.Ref().Stat(&st))
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 || st.Size != 4 {
		t.Errorf("mode %o, %d names, %d bytes", st.Mode, st.Nlink, st.Size)
	}
}
