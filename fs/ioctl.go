package fs

import (
	"encoding/binary"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Ioctl answers IOCTL for lsattr and chattr; other ioctls are ENOTTY.
func (o *Overlay) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, _ *fuse.IoctlOut, outbuf []byte) fuse.Status {
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("ioctl", err)
	}
	switch in.Cmd {
	case wire.IoctlGetFlags, wire.IoctlFsgetxattr:
		err = o.getFlags(n, in.Cmd, outbuf)
	case wire.IoctlSetFlags, wire.IoctlFssetxattr:
		err = o.setFlags(n, in, inbuf)
	default:
		err = unix.ENOTTY
	}
	return o.status("ioctl", err)
}

// getFlags reads the flags of n's own inode and adds those that only the overlay knows
// (ovl_fileattr_get).
func (o *Overlay) getFlags(n *Node, cmd uint32, arg []byte) error {
	if err := o.inodeFlags(n, cmd, arg); err != nil {
		return err
	}
	protection, err := o.guard.protection(n)
	if err != nil || len(arg) < 4 {
		return err
	}
	word := binary.NativeEndian.Uint32(arg)
	for _, f := range protectionFlags(cmd) {
		if protection&f.node != 0 {
			word |= f.arg
		}
	}
	binary.NativeEndian.PutUint32(arg, word)
	return nil
}

// setFlags sets the flags of n. Immutable and append-only become an attribute. They are cleared in
// the inode of the upper, in which an earlier version of this program or of the kernel may have set
// them. The other flags are those of the inode (ovl_fileattr_set). The inode comes first: while it
// is immutable, the attribute cannot be written.
func (o *Overlay) setFlags(n *Node, in *fuse.IoctlIn, given []byte) error {
	if len(given) < 4 {
		return unix.EINVAL
	}
	var wanted nodeFlag
	var inode uint32 // flags of sys
	arg := append([]byte(nil), given...)
	word := binary.NativeEndian.Uint32(arg)
	for _, f := range protectionFlags(in.Cmd) {
		if word&f.arg != 0 {
			wanted, inode, word = wanted|f.node, inode|f.inode, word&^f.arg
		}
	}
	binary.NativeEndian.PutUint32(arg, word)
	has, err := o.guard.protection(n)
	if err == nil {
		err = o.mayChangeFlags(n, in)
	}
	if err == nil && has != wanted {
		err = o.mayProtect(in)
	}
	if err != nil {
		return err
	}
	if err := o.copyUpMetadata(n); err != nil {
		return err
	}
	if wanted&^has != 0 && n.kind == unix.S_IFREG {
		o.kernel.dropPages(n.ID(), 0, 0) // what was written before is stored, and later writes are refused
	}
	if err := o.inodeFlags(n, in.Cmd, arg); err != nil {
		return err
	}
	if err := o.with(n, func(r owner.Ref) error { return o.stack.SetProtection(r.Inode(), inode) }); err != nil {
		return err
	}
	n.setProtection(wanted)
	n.unfixSize()
	if n.kind == unix.S_IFREG {
		o.handles.Evict(n.handleKey(stack.Upper, forWriting)) // perhaps opened with O_APPEND
	}
	o.kernel.dropAttr(n.ID()) // the change time
	if o.writesBack() && n.kind == unix.S_IFREG {
		o.renewInode(n)
	}
	return nil
}

// renewTime is how long a request waits for the kernel to drop the names of its object.
const renewTime = 20 * time.Millisecond

// renewInode makes the kernel drop the inode of n when no process has it open any more. With the
// writeback cache the kernel keeps its own change time of a regular file, and these ioctls do not
// change that.
//
// renewInode invalidates the names, so that the next lookup brings a new inode. For that the kernel
// takes the lock of the directory. Another process may hold that lock while it waits for the lock
// of n, which the kernel holds during the ioctl. So the ioctl waits for a bounded time.
func (o *Overlay) renewInode(n *Node) {
	if !o.kernel.connected() {
		return
	}
	n.mu.Lock()
	names := append([]placed{{n.parent, n.name}}, n.rareLocked().others...)
	if n.unlinked {
		names = nil
	}
	n.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, at := range names {
			o.kernel.EntryNotify(at.parent.ID(), at.name)
		}
	}()
	o.conn.While(func() {
		select {
		case <-done:
		case <-time.After(renewTime):
		}
	})
}

// mayChangeFlags reports EPERM if the caller of an ioctl must not change n's flags, where the
// kernel has not checked that (vfs_fileattr_set).
func (o *Overlay) mayChangeFlags(n *Node, in *fuse.IoctlIn) error {
	if !o.policy.ChecksFlags || isRoot(&in.InHeader) {
		return nil
	}
	var st sys.Stat
	err := o.with(n, func(r owner.Ref) error { return r.Stat(&st) })
	if err == nil && in.Uid != st.Uid {
		err = unix.EPERM
	}
	return err
}

// mayProtect reports EPERM if the caller of an ioctl must not set or clear immutable or
// append-only, where the kernel has not checked that (fileattr_set_prepare).
func (o *Overlay) mayProtect(in *fuse.IoctlIn) error {
	if !o.policy.ChecksFlags {
		return nil
	}
	may := host.MayProtect
	if o.cfg.MayProtect != nil {
		may = o.cfg.MayProtect
	}
	if !may(in.Pid) {
		return unix.EPERM
	}
	return nil
}

// protectionFlag is one of the flags that the overlay keeps, as the node, the ioctls and sys have
// it.
type protectionFlag struct {
	node       nodeFlag
	arg, inode uint32
}

// protectionFlags are those flags in the first word of an ioctl's argument: FS_XFLAG_ in a struct
// fsxattr, else FS_*_FL.
func protectionFlags(cmd uint32) []protectionFlag {
	if cmd == wire.IoctlFsgetxattr || cmd == wire.IoctlFssetxattr {
		return []protectionFlag{
			{flagImmutable, 0x08, sys.FlagImmutable},
			{flagAppendOnly, 0x10, sys.FlagAppend},
		}
	}
	return []protectionFlag{
		{flagImmutable, sys.FlagImmutable, sys.FlagImmutable},
		{flagAppendOnly, sys.FlagAppend, sys.FlagAppend},
	}
}

// inodeFlags makes the ioctl on the object's own descriptor. The numbers of the first two commands
// stand for eight bytes, and the kernel copies four. So the argument is padded.
func (o *Overlay) inodeFlags(n *Node, cmd uint32, arg []byte) error {
	padded := arg
	if len(arg) < 8 {
		padded = make([]byte, 8)
		copy(padded, arg)
		defer func() { copy(arg, padded) }()
	}
	switch n.kind {
	case unix.S_IFDIR:
		d := o.openDir(n)
		defer d.release()
		h, err := d.Layer(n.place().layer)
		if err != nil {
			return err
		}
		return h.Flags(cmd, padded)
	case unix.S_IFREG:
		file, err := o.ownFile(n, forReading)
		if err != nil {
			return err
		}
		defer file.Close()
		return file.Flags(cmd, padded)
	}
	return unix.ENOTTY
}
