package readers

import (
	"sync/atomic"
	"testing"
	"time"
)

// Without threads for more readers, requests wait for those at work. When there are threads
// again, a request behind others that hang is answered.
func TestReadersThatMayNotGrow(t *testing.T) {
	const last, stuck, allowed = 0, 20, 3
	answers, hang := make(chan byte, 1), make(chan struct{})
	var may, most atomic.Int32
	may.Store(allowed)
	f, _, _ := start(t, func(p *Pool, b byte) {
		most.Store(max(most.Load(), int32(p.atWork())))
		if b == last {
			answers <- b
			return
		}
		<-hang
	}, func(p *Pool) {
		p.OnGrow(func(readers int) bool { return readers <= int(may.Load()) })
	})
	for range allowed {
		f.send(1)
	}
	go func() {
		for range stuck - allowed {
			f.send(1)
		}
		f.send(last)
	}()
	select {
	case <-answers:
		t.Fatal("a request is answered although all readers hang")
	case <-time.After(5 * growPause):
	}
	if n := most.Load(); n != allowed {
		t.Errorf("%d readers, want %d", n, allowed)
	}
	may.Store(maxStuckReaders)
	within(t, "the answer when there are threads", answers)
	close(hang)
}
