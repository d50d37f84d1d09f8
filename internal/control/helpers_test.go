package control

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var must = testkit.Must

// testDev is a device number of a mount, and testName the name of its socket.
var testDev = unix.Mkdev(0, 77)

const testName = "77"

// site is a runtime directory of this user, with a daemon.
type site struct {
	t      *testing.T
	dir    host.RuntimeDir
	place  *Place
	server *Server
	failed []error
}

// newSite makes the runtime directory. There is no socket before listen.
func newSite(t *testing.T) *site {
	t.Helper()
	dir := host.RuntimeDir{Path: t.TempDir(), Owner: uint32(os.Geteuid())}
	must(t, os.Chmod(dir.Path, 0o700))
	folder, err := dir.Open()
	must(t, err)
	s := &site{t: t, dir: dir, place: &Place{folder}}
	t.Cleanup(s.place.Close)
	return s
}

// listen starts a daemon whose numbers stats returns. nil: they are all 0.
func (s *site) listen(stats func() Stats) *site {
	s.t.Helper()
	if stats == nil {
		stats = func() Stats { return Stats{} }
	}
	server, err := s.place.Listen(testDev, s.dir.Owner, Source{
		Mount:  func() Mount { return Mount{PID: os.Getpid(), Point: "/mnt", Lowers: []string{"/a", "/b"}} },
		Stats:  stats,
		Failed: func(err error) { s.failed = append(s.failed, err) },
	})
	must(s.t, err)
	server.Start()
	s.server = server
	s.t.Cleanup(func() { _ = server.Close() })
	return s
}

func (s *site) socket() string { return filepath.Join(s.dir.Path, folderName, testName) }

// connect connects to the socket, which must be there.
func (s *site) connect() net.Conn {
	s.t.Helper()
	c, err := net.Dial("unix", s.socket())
	must(s.t, err)
	must(s.t, c.SetDeadline(time.Now().Add(10*time.Second)))
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) info() (*Mount, error) {
	r, err := callIn(s.t.Context(), s.dir, testName, requestInfo)
	if err != nil {
		return nil, err
	}
	return r.Mount, nil
}
