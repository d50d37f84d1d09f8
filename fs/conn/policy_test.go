package conn

import (
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

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

// A kernel that does not check POSIX ACLs is refused, by its protocol: distributions give old
// releases the FUSE of later ones.
func TestOldProtocolIsRefused(t *testing.T) {
	for minor, refused := range map[uint32]bool{12: true, 25: true, 26: false, 32: false, 45: false} {
		err := checkProtocol(&fuse.InitIn{Major: 7, Minor: minor})
		if (err != nil) != refused {
			t.Errorf("protocol 7.%d: %v", minor, err)
		}
		if err != nil && !strings.Contains(err.Error(), "Linux 4.9") {
			t.Errorf("protocol 7.%d: no kernel is named: %v", minor, err)
		}
	}
}
