package conn

import (
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

func TestWhichIdleCPUsPoll(t *testing.T) {
	small := host.OnlineCPUs() <= maxPollingCPUs
	for c, want := range map[CPUIdle]bool{
		CPUIdleSleep: false, CPUIdlePoll: true, CPUIdleAuto: small && host.PollsWhileIdle(),
	} {
		if got, reason := c.polls(); got != want || reason == "" {
			t.Errorf("%d: %v because %q, want %v", c, got, reason, want)
		}
	}
	w, err := newIdlePoll(CPUIdleSleep, zap.NewNop())
	if err != nil || w.poll != nil || !strings.HasPrefix(w.decision, "sleep: cpu_idle=sleep") {
		t.Errorf("sleep: %+v, %v: polling is requested", w, err)
	}
	if w.request(true) {
		t.Error("sleep: idle CPUs count as awake")
	}
	w.close()
}
