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
		if got := c.wants(); got != want {
			t.Errorf("%d: %v, want %v", c, got, want)
		}
	}
	w, err := newIdlePoll(CPUIdleSleep, zap.NewNop())
	if err != nil || w.poll != nil {
		t.Errorf("sleep: %v, %v: something is to be asked for", w.poll, err)
	}
	if w.ask(true) {
		t.Error("sleep: idle CPUs are said to be awake")
	}
	w.close()
}
