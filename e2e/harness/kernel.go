package harness

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Implementation is a program that mounts an overlay.
type Implementation string

// The two implementations that tests mount in turn.
const (
	Ours   Implementation = "ours"
	Kernel Implementation = "kernel"
)

// Redirects is the option under which directories that have lower parts can be renamed.
const Redirects = "redirect_dir=on"

// MountKernel mounts the kernel's overlayfs on the layers, with the options under which it is the
// model of the program.
func (o *Overlay) MountKernel() error {
	o.T.Helper()
	if o.Env.Mode == ModeUserns && !KernelAtLeast(o.T, 5, 11) {
		o.T.Skip("not applicable on this kernel: a user namespace can mount overlayfs since Linux 5.11")
	}
	opts := o.KernelOpts
	if opts == "" {
		opts = kernelOptions(o.Env)
	}
	err := MountOverlayfs(o.Point, o.KernelFlags, o.kernelData(opts))
	if err == nil {
		o.Guard()
	}
	return err
}

// MountKernelWith mounts the kernel's overlayfs on the layers with these options alone.
func (o *Overlay) MountKernelWith(options ...string) error {
	err := MountOverlayfs(o.Point, 0, o.kernelData(options...))
	if err == nil {
		o.T.Cleanup(o.cleanup)
	}
	return err
}

// kernelData is the data argument of mount(2).
func (o *Overlay) kernelData(options ...string) string {
	data := []string{o.Lowerdir()}
	if o.Upper != "" {
		data = append(data, "upperdir="+o.Upper, "workdir="+o.Work)
	}
	return strings.Join(append(data, options...), ",")
}

// MountOverlayfs mounts the kernel's overlayfs. With index=on the kernel returns EBUSY until the
// last mount of the upper is freed, so the call is repeated.
func MountOverlayfs(point string, flags uintptr, data string) error {
	err := notBusy(func() error { return unix.Mount("overlay", point, "overlay", flags, data) })
	if err != nil {
		return fmt.Errorf("kernel overlayfs (%s): %w", data, err)
	}
	return nil
}

// kernelOptions are the options under which the kernel's overlayfs is the model of the program.
func kernelOptions(e *Env) string {
	if e.Mode == ModeUserns {
		return "index=off,xino=off,userxattr" // implies redirect_dir=nofollow, metacopy=off
	}
	if e.Has(Redirects) {
		return "index=off,metacopy=off,xino=off," + Redirects
	}
	return "index=off,redirect_dir=off,metacopy=off,xino=off"
}

// XattrPrefix is the prefix of the xattrs that mark objects of a layer, where the mode may write
// them.
func (e *Env) XattrPrefix() string {
	if e.Mode == ModeRoot {
		return "trusted.overlay."
	}
	return "user.overlay."
}

// OpaqueName is the xattr that marks opaque directories, where the mode may write it.
func (e *Env) OpaqueName() string { return e.XattrPrefix() + "opaque" }

// KernelUserOption is the option that the kernel's overlayfs needs where it may not use trusted
// xattrs. Elsewhere it is an option that changes nothing.
func (e *Env) KernelUserOption() string {
	if e.Mode == ModeRoot {
		return "index=off"
	}
	return "userxattr"
}
