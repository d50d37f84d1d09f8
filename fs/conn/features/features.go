// Package features answers what the running kernel offers to a mount. It finds that by trying, with
// the rights of the caller, and changes nothing that other processes see.
//
// A plain user tries in a user namespace: only there the user may make a mount.
package features

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Feature is something that a kernel may offer.
type Feature struct {
	Name string `json:"name"`
	// Here is whether it is offered. nil: not known, because of Reason.
	Here   *bool  `json:"here"`
	Reason string `json:"reason,omitempty"`
	// Without is what happens without it.
	Without string `json:"without"`
}

// Kernel is what the running kernel offers.
type Kernel struct {
	Release string `json:"release"`
	// Protocol is the version of the FUSE protocol. Empty: not known.
	Protocol string    `json:"fuse_protocol"`
	Features []Feature `json:"features"`
}

// Find tries all features.
func Find() Kernel {
	tried := tryAll()
	k := Kernel{Release: host.KernelRelease(), Protocol: tried.Protocol}
	for _, f := range Flags {
		k.add(f.Name, f.Without, tried.Flags&f.Bit != 0, tried.FuseError)
	}
	k.add("direct I/O for new files", "new files are cached twice", DirectIO(tried.Flags, tried.Minor), tried.FuseError)
	k.add("clones of the lowers' mounts", "lowers are not read-only to the daemon, and keep their mounts", tried.Clones, tried.Error)
	k.add("whiteouts are devices", "removed names are files .wh.NAME", tried.Whiteouts, tried.WhiteoutError)
	return k
}

// add adds a feature. reason is why it could not be tried; empty: it was.
func (k *Kernel) add(name, without string, here bool, reason string) {
	f := Feature{Name: name, Without: without, Reason: reason}
	if reason == "" {
		f.Here = &here
	}
	k.Features = append(k.Features, f)
}

// trial is what one process has found. It goes from the process in the user namespace to the one
// that has started it.
type trial struct {
	Protocol string
	Minor    uint32 // of the protocol
	Flags    uint64 // of INIT
	Clones   bool
	// Error is why clones could not be tried, FuseError why INIT could not be read.
	Error, FuseError string
	Whiteouts        bool
	WhiteoutError    string
}

// tryAll tries in this process if it may mount, and in a user namespace otherwise. Whiteouts are
// always tried here: a user namespace has other rights to make devices.
func tryAll() (t trial) {
	if host.MayMount() {
		t = tryMounts()
	}
	if t.Protocol == "" { // root of a user namespace may be in a mount namespace of others
		apart, err := tryApart()
		switch {
		case err == nil:
			t = apart
		case t.FuseError == "":
			t.Error = fmt.Sprintf("this user may not make a user namespace (%v); try as root", err)
			t.FuseError = t.Error
		}
	}
	switch err := host.InTemporaryFolder(host.MakeWhiteout); err {
	case nil:
		t.Whiteouts = true
	case unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP:
	default:
		t.WhiteoutError = err.Error()
	}
	return t
}

func tryMounts() (t trial) {
	in, err := readInit()
	if err != nil {
		t.FuseError = err.Error()
	} else {
		t.Protocol, t.Flags, t.Minor = fmt.Sprintf("%d.%d", in.Major, in.Minor), in.Flags64(), in.Minor
	}
	err = host.InTemporaryFolder(func(dir string) error { // without mounts inside, as a layer
		d, cloned, err := sys.OpenLower(dir)
		if err == nil {
			t.Clones = cloned
			d.Close()
		}
		return err
	})
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// minRead is the smallest buffer in which the kernel puts a request (FUSE_MIN_READ_BUFFER of
// linux/fuse.h).
const minRead = 8192

// initLimit is how long the kernel may take to send INIT.
const initLimit = 5 * time.Second

// readInit makes a FUSE file system that no path leads to, and reads the kernel's INIT. It does not
// answer.
func readInit() (in fuse.InitIn, err error) {
	dev, err := host.OpenDevice()
	if err != nil {
		return in, fmt.Errorf("cannot open /dev/fuse: %w", err)
	}
	root, err := dev.MountDetached()
	if err != nil {
		dev.Close()
		return in, fmt.Errorf("cannot mount: %w", err)
	}
	defer root.Close()
	defer dev.Close() // first, or the kernel would wait for an answer
	if err := dev.SetNonblock(); err != nil {
		return in, err
	}
	if ready, err := dev.Wait(initLimit); err != nil || !ready {
		return in, errors.Join(errors.New("the kernel sends no INIT"), err)
	}
	buf := make([]byte, minRead)
	n, err := dev.TryRead(buf)
	if err != nil {
		return in, err
	}
	a := wire.Argument[fuse.InitIn](buf[:n])
	if a == nil || wire.Opcode(wire.Header(buf).Opcode) != wire.OpInit {
		return in, errors.New("the first request is not INIT")
	}
	return *a, nil
}

// apartVariable is set in the process that tryApart starts.
const apartVariable = "_FUSE_OVERLAY_FEATURES"

// tryApart calls tryMounts in another process of this program, in a user namespace.
func tryApart() (t trial, err error) {
	out, err := host.RunInUserNamespace(apartVariable+"=1", initLimit)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(out, &t)
}

// RunApart does the work of the process that tryApart starts, which writes the result to stdout. It
// returns false in all other processes. After true, the caller ends the process.
func RunApart(stdout io.Writer) bool {
	if os.Getenv(apartVariable) == "" {
		return false
	}
	_ = json.NewEncoder(stdout).Encode(tryMounts()) // without it the other process finds no answer
	return true
}
