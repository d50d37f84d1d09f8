package fs

import (
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// The probe ends when its client ends without an answer, and after one second without an answer.
func TestLossProbeWithoutClient(t *testing.T) {
	for _, ends := range []bool{true, false} {
		server, client, err := host.NewSocketPair()
		must(t, err)
		if ends {
			client.Close()
		}
		start := time.Now()
		found, err := ServeLossProbe(server)
		if took := time.Since(start); found != LossUnknown || err == nil || ends && took > lossTimeout/2 || took > 5*lossTimeout {
			t.Errorf("a client that ends: %v: found %v, %v after %v", ends, found, err, took)
		}
		server.Close()
		if !ends {
			client.Close()
		}
	}
}

// Without a result of the probe, appends count as lost. Only a mount that can be written needs the
// probe.
func TestWhenTheKernelCollectsWrites(t *testing.T) {
	for _, c := range []struct {
		asked     Writeback
		io        IO
		loss      Loss
		writeback bool
	}{
		{WritebackAuto, IOAuto, LossFound, true}, {WritebackAuto, IOAuto, LossUnknown, true}, {WritebackAuto, IOCached, LossNone, false},
		{WritebackOff, IOAuto, LossFound, false}, {WritebackOff, IOAuto, LossUnknown, false},
		{WritebackOn, IOAuto, LossNone, true}, {WritebackAuto, IOPassthrough, LossFound, false},
	} {
		for _, lower := range []bool{false, true} {
			cfg := newFolders(t, "", "file f")
			cfg.Writeback, cfg.IO, cfg.Loss = c.asked, c.io, func() Loss { return c.loss }
			if lower {
				cfg.Upper, cfg.Work = "", ""
			}
			s := openSite(t, cfg, false)
			s.o.chooseWriteback()
			if want := c.writeback && !lower; s.o.writeback != want {
				t.Errorf("%+v, read-only %v: collects writes: %v", c, lower, s.o.writeback)
			}
		}
	}
}
