package lossprobe

import (
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// The probe ends when its client ends without an answer, and after one second without an answer.
func TestLossProbeWithoutClient(t *testing.T) {
	for _, ends := range []bool{true, false} {
		server, client, err := host.NewSocketPair()
		if err != nil {
			t.Fatal(err)
		}
		if ends {
			client.Close()
		}
		start := time.Now()
		found, err := Serve(server)
		if took := time.Since(start); found != Unknown || err == nil || ends && took > timeout/2 || took > 5*timeout {
			t.Errorf("a client that ends: %v: found %v, %v after %v", ends, found, err, took)
		}
		server.Close()
		if !ends {
			client.Close()
		}
	}
}
