package host

import (
	"os"
	"strings"
	"testing"
	"time"
)

// tasks returns how many threads the kernel counts for this process.
func tasks(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The threads are there after ReserveThreads, and those that tried the kernel have ended.
func TestReserveThreads(t *testing.T) {
	const n = 40
	others := tasks(t) - threads() // of an emulator, or of a race detector
	for range 3 {
		if !ReserveThreads(n) {
			t.Fatal("no threads")
		}
	}
	made := threads()
	if made < n {
		t.Errorf("%d threads, want %d at least", made, n)
	}
	if runtimeOwn := 4; made > n+64+runtimeOwn {
		t.Errorf("%d threads for %d", made, n)
	}
	for deadline := time.Now().Add(5 * time.Second); tasks(t) > threads()+others; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel has %d threads, the runtime %d", tasks(t), threads())
		}
	}
	// Signals are blocked in no thread.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "SigBlk:\t0000000000000000\n") {
		t.Errorf("signals stay blocked:\n%s", status)
	}
}
