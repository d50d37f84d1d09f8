package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// The probe for lost appends (package lossprobe) takes two processes. The daemon is the server. The
// client is the process that has started the daemon and only waits for it, so the probe costs no
// third process. If there is no such process, or it may not mount, the daemon starts a client. If
// the client may mount only in a user namespace, it gets one.

// lossServerVariable holds the number of the daemon's end of the connection to the client. A
// process that has lossClientVariable in its environment is the client and does nothing else.
const (
	lossServerVariable = "_FUSE_OVERLAY_LOSS_SERVER_FD"
	lossClientVariable = "_FUSE_OVERLAY_LOSS_CLIENT_FD"
)

// needsLossProbe reports whether the mount depends on the result of the probe.
func needsLossProbe(req *request) bool {
	o := &req.overlay
	return o.Upper != "" && !o.ReadOnly && o.Conn.IO != conn.IOPassthrough && o.Conn.Writeback != conn.WritebackOn
}

// runLossClient runs a process that is a client and nothing else. It returns false in all others.
func runLossClient() bool {
	socket, device, inherited := strings.Cut(os.Getenv(lossClientVariable), ":")
	fd, err := strconv.Atoi(socket)
	if err != nil {
		return false
	}
	// On any error the server finds the connection closed.
	var dev *host.Device
	if !inherited {
		dev, err = host.OpenDevice()
	} else if number, e := strconv.Atoi(device); e == nil {
		dev, err = host.AdoptDevice(number)
	} else {
		err = e
	}
	if err == nil {
		_ = lossprobe.RunClient(dev, host.AdoptSocket(fd))
	}
	return true
}

// startLossClientHere runs the client in this process and returns the server's end of the
// connection; nil on error.
func startLossClientHere() *host.Socket {
	server, client, err := host.NewSocketPair()
	if err != nil {
		return nil
	}
	go func() {
		if dev, err := host.OpenDevice(); err == nil {
			_ = lossprobe.RunClient(dev, client)
		}
		client.Close()
	}()
	return &server
}

// inheritedLossSocket returns the server's end, in a daemon whose starter is the client.
func inheritedLossSocket() (s host.Socket, ok bool) {
	fd, err := strconv.Atoi(os.Getenv(lossServerVariable))
	if err != nil {
		return s, false
	}
	os.Unsetenv(lossServerVariable)
	syscall.CloseOnExec(fd)
	return host.AdoptSocket(fd), true
}

// startLossProbe begins the probe, if it is needed. wait waits for its result. abandon is for a
// mount that fails: it waits for the end of the probe and of its process, so that nothing is left
// of the mount.
func startLossProbe(req *request, log *zap.Logger) (wait func() lossprobe.Result, abandon func()) {
	if !needsLossProbe(req) {
		return nil, func() {}
	}
	result := make(chan lossprobe.Result, 1)
	start := time.Now()
	socket, ok := inheritedLossSocket()
	ended := make(chan struct{})
	var err error
	if ok {
		close(ended)
	} else { // at once: later this process may have left what the start of another one needs
		socket, err = startLossClient(req.called, ended)
	}
	go func() {
		var loss lossprobe.Result
		if err == nil {
			loss, err = lossprobe.Serve(socket)
			socket.Close()
		}
		log.Debug("probe for lost appends", zap.Duration("took", time.Since(start)), zap.Error(err))
		result <- loss
	}()
	wait = sync.OnceValue(func() lossprobe.Result { return <-result })
	return wait, func() { wait(); <-ended }
}

// startLossClient starts a client process and returns the server's end of the connection. It closes
// ended when there is no such process any more.
func startLossClient(name string, ended chan<- struct{}) (host.Socket, error) {
	server, client, err := host.NewSocketPair()
	if err != nil {
		close(ended)
		return server, err
	}
	namespaces := host.OwnNamespaces
	if host.MayMount() {
		namespaces = host.SameNamespaces
	}
	child, err := host.StartProbe(name, client, lossClientVariable, namespaces)
	client.Close()
	if err != nil {
		close(ended)
		server.Close()
		return server, err
	}
	go func() {
		_, _ = child.Wait()
		close(ended)
	}()
	return server, nil
}
