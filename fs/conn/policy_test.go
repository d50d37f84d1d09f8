package conn

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
)

// Without a result of the probe, appends count as lost. Only a mount that can be written needs the
// probe.
func TestWhenTheKernelCollectsWrites(t *testing.T) {
	for _, c := range []struct {
		asked     Writeback
		io        IO
		loss      lossprobe.Result
		writeback bool
	}{
		{WritebackAuto, IOAuto, lossprobe.Found, true}, {WritebackAuto, IOAuto, lossprobe.Unknown, true},
		{WritebackAuto, IOCached, lossprobe.None, false},
		{WritebackOff, IOAuto, lossprobe.Found, false}, {WritebackOff, IOAuto, lossprobe.Unknown, false},
		{WritebackOn, IOAuto, lossprobe.None, true}, {WritebackAuto, IOPassthrough, lossprobe.Found, false},
	} {
		for _, readOnly := range []bool{false, true} {
			conn := newConn(t, Config{Writeback: c.asked, IO: c.io, Loss: func() lossprobe.Result { return c.loss }})
			got := conn.chooseWriteback(Traits{Writable: !readOnly}).on
			if want := c.writeback && !readOnly; got != want {
				t.Errorf("%+v, read-only %v: collects writes: %v", c, readOnly, got)
			}
		}
	}
}
