package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// Forget answers FORGET: the kernel gives references back.
func (o *Overlay) Forget(id, count uint64) {
	o.ForgetAll([]wire.Forget{{NodeID: id, Lookups: count}})
}

// ForgetAll gives back what FORGET or BATCH_FORGET lists.
func (o *Overlay) ForgetAll(list []wire.Forget) {
	for _, f := range list {
		o.journal.forget(f)
		if n, last := o.nodes.Unref(f.NodeID, f.Lookups); last {
			o.drop(n)
		}
	}
}
