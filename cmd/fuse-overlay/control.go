package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// controlled is the control socket of a mount, which no mount fails for.
type controlled struct {
	req     *request
	overlay *fs.Overlay
	dev     uint64 // device number of the mount
	dir     string // the directory of the caller, where relative paths begin; empty: not known
	started time.Time
	log     *zap.Logger

	place  *control.Place // nil: there will be no socket
	server *control.Server
}

// prepareControl opens the runtime directory, before the daemon leaves the mounts of its caller. A
// mount point /dev/fd/N has no socket: the process that has mounted it knows its device number, and
// the daemon does not.
func prepareControl(req *request, overlay *fs.Overlay, log *zap.Logger) *controlled {
	c := &controlled{req: req, overlay: overlay, log: log}
	if _, external := conn.DeviceFD(req.mount.Point); external || req.noControl {
		return c
	}
	place, err := control.OpenPlace()
	if err != nil {
		c.missing(err)
		return c
	}
	c.place = place
	c.dir, _ = os.Getwd() // without it, relative paths stay as they are
	return c
}

func (c *controlled) missing(err error) { c.log.Debug("no control socket", zap.Error(err)) }

// listen makes the socket of a mount that is not served yet, in 0.2 ms. The device number of the
// mount is its name.
func (c *controlled) listen(place host.Place) {
	c.dev, c.started = place.Mount.Dev, time.Now()
	if c.place == nil {
		return
	}
	var err error
	c.server, err = c.place.Listen(c.dev, uint32(os.Geteuid()), control.Source{
		Mount: c.describe, Stats: c.stats,
		Failed: func(err error) { c.log.Error("control socket", zap.Error(err)) },
	})
	if err != nil {
		c.missing(err)
	}
	if c.req.supervise { // the process that takes over needs it
		return
	}
	c.place.Close()
	c.place = nil
}

// inheritable returns what the process that takes over needs for a socket. nil: there is none.
func (c *controlled) inheritable() *control.InheritedPlace {
	if c.place == nil {
		return nil
	}
	return c.place.Inheritable()
}

// inherit takes over the runtime directory of the process before.
func (c *controlled) inherit(place *control.InheritedPlace) {
	if place != nil {
		c.place = control.InheritPlace(place)
	}
}

// serve answers clients, before the mount is reported to the caller of the program.
func (c *controlled) serve() {
	if c.server != nil {
		c.server.Start()
	}
}

// close removes the socket.
func (c *controlled) close() {
	if c.place != nil {
		c.place.Close()
	}
	if c.server == nil {
		return
	}
	if err := c.server.Close(); err != nil {
		c.log.Debug("cannot remove the control socket", zap.Error(err))
	}
}

func (c *controlled) describe() control.Mount {
	layers := c.overlay.Layers()
	return control.Mount{
		Version: version.String(), PID: os.Getpid(), Started: c.started,
		Point: c.req.mount.Point, Device: fmt.Sprintf("%d:%d", unix.Major(c.dev), unix.Minor(c.dev)),
		Mode: string(c.overlay.Mode()), IO: c.overlay.IO(),
		Upper: c.absolute(layers.Upper), Lowers: c.allAbsolute(layers.Lowers), DataOnly: c.allAbsolute(layers.DataOnly),
	}
}

// absolute returns the path of a layer from the root, if it is known.
func (c *controlled) absolute(path string) string {
	if path == "" || c.dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.dir, path)
}

func (c *controlled) allAbsolute(paths []string) []string {
	all := make([]string, len(paths))
	for i, path := range paths {
		all[i] = c.absolute(path)
	}
	return all
}

func (c *controlled) stats() control.Stats {
	s := c.overlay.Stats()
	return control.Stats{
		Mount: c.describe(), Uptime: time.Since(c.started).Seconds(),
		Requests: requestsOf(s.Requests),
		CopyUps:  control.CopyUps{Objects: s.CopyUps, Bytes: s.CopyUpBytes},
		Inodes:   control.Inodes{Known: s.Inodes, Made: s.InodesMade},
		Caches: control.Caches{
			HandlesOpen: s.Handles.Open, HandlesFound: s.Handles.Found, HandlesOpened: s.Handles.Added,
			DirLoads: s.DirLoads, PrefetchedReads: s.PrefetchedReads,
		},
		Process: processNumbers(),
	}
}

func requestsOf(list []conn.RequestStats) []control.Request {
	requests := make([]control.Request, len(list))
	for i, r := range list {
		requests[i] = control.Request{Kind: r.Kind, Count: r.Count, Seconds: r.Total.Seconds()}
		for _, b := range r.Latency {
			requests[i].Latency = append(requests[i].Latency, control.Bucket{Below: int64(b.End), Count: b.Count})
		}
	}
	return requests
}

// Metrics of package runtime/metrics. heapMetric is the memory of objects on the heap, those
// included that the garbage collector has not freed yet.
const (
	heapMetric      = "/memory/classes/heap/objects:bytes"
	goroutineMetric = "/sched/goroutines:goroutines"
)

// processNumbers returns what this process uses. What cannot be read is 0.
func processNumbers() (p control.Process) {
	if n, err := host.OpenFiles(); err == nil {
		p.OpenDescriptors = uint64(n)
	}
	if n, err := host.ResidentMemory(); err == nil {
		p.ResidentBytes = n
	}
	runtime := []metrics.Sample{{Name: heapMetric}, {Name: goroutineMetric}}
	metrics.Read(runtime)
	for i, number := range []*uint64{&p.HeapBytes, &p.Goroutines} {
		if v := runtime[i].Value; v.Kind() == metrics.KindUint64 {
			*number = v.Uint64()
		}
	}
	return p
}
