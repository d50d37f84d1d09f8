package conn

import (
	"testing"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

func TestWhoWantsIdleCPUsToPoll(t *testing.T) {
	small := host.OnlineCPUs() <= fewCPUs
	for c, want := range map[CPUIdle]bool{
		CPUIdleSleep: false, CPUIdlePoll: true, CPUIdleAuto: small && host.PollsWhileIdle(),
	} {
		if why := c.sleepReason(); (why == "") != want {
			t.Errorf("%d: sleeps because of %q, want polling %v", c, why, want)
		}
	}
	w, err := newIdlePoll(CPUIdleSleep, zap.NewNop())
	if err != nil || w.poll != nil || w.sleepReason != "cpu_idle=sleep" {
		t.Errorf("sleep: %v, %v: something is to be asked for", w.poll, err)
	}
	if w.ask(true) {
		t.Error("sleep: idle CPUs are said to be awake")
	}
	w.close()
}
