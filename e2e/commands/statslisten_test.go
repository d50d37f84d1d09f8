package commands

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// listens reports whether a process listens on a socket. The socket has its name a moment before.
func listens(path string) bool {
	c, err := net.Dial("unix", path)
	return err == nil && c.Close() == nil
}

// --listen serves scrapers until it is interrupted, or until the mount has gone.
func TestStatsListen(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		useRuntimeDir(t, e)
		o := e.Mounted(t, "file f \"x\"")
		socket := filepath.Join(e.Dir, "page.sock")
		scrape := func() (int, string) {
			client := http.Client{Timeout: harness.CommandLimit, Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "unix", socket)
				},
			}}
			r, err := client.Get("http://localhost/metrics")
			harness.Check(t, err)
			defer r.Body.Close()
			text, err := io.ReadAll(r.Body)
			harness.Check(t, err)
			return r.StatusCode, string(text)
		}
		for _, unmounts := range []bool{false, true} {
			var errs bytes.Buffer
			cmd := exec.Command(harness.Program, "stats", "--listen", "unix:"+socket, o.Point)
			cmd.Stderr = &errs
			harness.Check(t, cmd.Start())
			defer func() { _ = cmd.Process.Kill() }() // if the test fails before its end
			if !harness.Eventually(harness.CommandLimit, func() bool { return listens(socket) }) {
				t.Fatalf("it does not listen: %s", &errs)
			}
			if status, page := scrape(); status != http.StatusOK || !strings.Contains(page, "\nfuse_overlay_requests_total{") {
				t.Errorf("%d: %s", status, page)
			}
			if unmounts {
				o.Unmount()
				if status, page := scrape(); status != http.StatusServiceUnavailable {
					t.Errorf("without the mount: %d: %s", status, page)
				}
			} else {
				harness.Check(t, cmd.Process.Signal(syscall.SIGTERM))
			}
			code := harness.ExitCode(cmd.Wait())
			if unmounts != (code == 1) || unmounts != strings.Contains(errs.String(), "it has been unmounted") {
				t.Errorf("unmounted %v: exit %d, %q", unmounts, code, &errs)
			}
			if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		}
	})
}
