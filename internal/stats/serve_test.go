package stats

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// get requests a path over the socket.
func get(path, url string) (status int, kind, body string, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	r, err := client.Get("http://x" + url)
	if err != nil {
		return 0, "", "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header.Get("Content-Type"), string(text), err
}

// serving serves until the returned function is called, which returns the error of Serve.
func serving(t *testing.T, path string, read func() (*control.Stats, error)) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, read) }()
	for range 500 {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("Serve does not end")
		}
	}
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	end := serving(t, path, func() (*control.Stats, error) { return at(1, control.Request{Kind: "READ", Count: 3}), nil })
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	for range 2 {
		status, kind, body, err := get(path, "/metrics")
		if err != nil || status != http.StatusOK || kind != ContentType {
			t.Fatalf("%d %s %v", status, kind, err)
		}
		if readPage(t, body)[`fuse_overlay_requests_total{mount="/mnt",kind="READ"}`] != 3 {
			t.Errorf("%s", body)
		}
	}
	if status, _, _, err := get(path, "/"); err != nil || status != http.StatusNotFound {
		t.Errorf("/: %d, %v", status, err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A daemon that does not answer for once is an error of one scrape. One that is gone is the end.
func TestServeWithoutDaemon(t *testing.T) {
	for _, tt := range []struct {
		err  error
		ends bool
	}{{errors.New("busy"), false}, {ErrUnmounted, true}, {ErrEnded, true}} {
		path := filepath.Join(t.TempDir(), "socket")
		end := serving(t, path, func() (*control.Stats, error) { return nil, tt.err })
		status, _, body, err := get(path, "/metrics")
		if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, tt.err.Error()) {
			t.Errorf("%v: %d %q %v", tt.err, status, body, err)
		}
		time.Sleep(50 * time.Millisecond)
		if got := end(); errors.Is(got, tt.err) != tt.ends {
			t.Errorf("%v: Serve returns %v", tt.err, got)
		}
	}
}

// What lies at the path is replaced only if it is the socket of a process that has ended.
func TestServeAtAPathInUse(t *testing.T) {
	read := func() (*control.Stats, error) { return at(1), nil }
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	testkit.Must(t, err)
	if err := Serve(context.Background(), path, read); !errors.Is(err, unix.EADDRINUSE) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("beside another listener: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	testkit.Must(t, l.Close())
	end := serving(t, path, read)
	if status, _, _, err := get(path, "/metrics"); err != nil || status != http.StatusOK {
		t.Errorf("in place of a dead socket: %d, %v", status, err)
	}
	testkit.Must(t, end())
	testkit.Must(t, os.WriteFile(path, []byte("precious"), 0o600))
	if err := Serve(context.Background(), path, read); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("in place of a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if err := Serve(context.Background(), filepath.Join(path, "none"), read); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}
