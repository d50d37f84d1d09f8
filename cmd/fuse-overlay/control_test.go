package main

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

func TestControlOption(t *testing.T) {
	for list, off := range map[string]bool{"lowerdir=/a": false, "lowerdir=/a,control=on": false, "lowerdir=/a,control=off": true} {
		req, err := parseRequest("fuse-overlay", []string{"fuse-overlay", "-o", list, "/mnt"})
		if err != nil || req.noControl != off {
			t.Errorf("%s: %+v, %v", list, req, err)
		}
	}
	if _, err := parseRequest("fuse-overlay", []string{"fuse-overlay", "-o", "lowerdir=/a,control=0", "/mnt"}); err == nil {
		t.Error("control=0 is not refused")
	}
}

// Without a socket, or for a mount of others, nothing is opened and nothing fails.
func TestNoControlSocket(t *testing.T) {
	for name, req := range map[string]*request{
		"control=off": {noControl: true},
		"/dev/fd/N":   {mount: conn.MountConfig{Point: "/dev/fd/5"}},
	} {
		c := prepareControl(req, nil, zap.NewNop())
		if c.place != nil {
			t.Errorf("%s: a runtime directory is open", name)
		}
		c.listen(host.Place{})
		if c.server != nil {
			t.Errorf("%s: there is a socket", name)
		}
		c.close()
	}
}

// What a client gets is what the overlay counts.
func TestControlReplies(t *testing.T) {
	dir := t.TempDir()
	overlay, err := fs.Open(fs.Config{Lowers: []string{dir}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer overlay.Close()
	c := &controlled{req: &request{mount: conn.MountConfig{Point: "/mnt"}}, overlay: overlay, log: zap.NewNop()}
	c.listen(host.Place{Mount: host.MountEntry{Dev: unix.Mkdev(0, 77)}})
	m := c.describe()
	if m.Device != "0:77" || m.Point != "/mnt" || m.Mode != "read-only" || m.Upper != "" || len(m.Lowers) != 1 || m.Lowers[0] != dir ||
		time.Since(m.Started) > time.Minute || m.PID == 0 {
		t.Errorf("%+v", m)
	}
	s := c.stats()
	if s.Mount.Device != m.Device || s.Uptime <= 0 || s.Inodes != (control.Inodes{Known: 1, Made: 1}) || len(s.Requests) != 0 {
		t.Errorf("%+v", s)
	}
	if p := s.Process; p.OpenDescriptors < 3 || p.ResidentBytes < 1<<20 || p.HeapBytes < 1<<16 || p.HeapBytes > p.ResidentBytes || p.Goroutines < 2 {
		t.Errorf("%+v", p)
	}
}

func TestRequestsOf(t *testing.T) {
	got := requestsOf([]conn.RequestStats{
		{Kind: "READ", Count: 3, Latency: []conn.Bucket{{End: time.Microsecond, Count: 2}}, Total: 1500 * time.Millisecond},
		{Kind: "FORGET", Count: 1},
	})
	if len(got) != 2 || got[0].Kind != "READ" || got[0].Count != 3 || got[0].Seconds != 1.5 || len(got[0].Latency) != 1 ||
		got[0].Latency[0] != (control.Bucket{Below: 1000, Count: 2}) || got[1].Count != 1 || got[1].Latency != nil {
		t.Errorf("%+v", got)
	}
}
