package faults

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// server is a process of this test binary that serves a FUSE mount. It writes the line "ready" when
// the mount replies, and ends after the unmount.
type server struct {
	t     *testing.T
	mode  harness.Mode
	mnt   string
	cmd   *exec.Cmd
	out   *bufio.Reader
	ended bool
}

// startServer makes the folder mnt and starts the process in a role of harness.Suite, until the
// test ends or end is called.
func startServer(t *testing.T, mode harness.Mode, role, words, mnt string) *server {
	t.Helper()
	harness.Mkdir(t, mnt)
	self, err := os.Executable()
	harness.Check(t, err)
	s := &server{t: t, mode: mode, mnt: mnt, cmd: exec.Command(self)}
	s.cmd.Env = append(os.Environ(), role+"="+words)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	harness.Check(t, err)
	harness.Check(t, s.cmd.Start())
	s.out = bufio.NewReader(out)
	t.Cleanup(s.end)
	s.expect("ready\n")
	return s
}

// expect waits for a line of the process.
func (s *server) expect(want string) {
	s.t.Helper()
	if line, err := s.out.ReadString('\n'); line != want {
		s.t.Fatalf("the server of %s: %q, %v", s.mnt, line, err)
	}
}

// end unmounts, and waits for the end of the process.
func (s *server) end() {
	s.t.Helper()
	if s.ended {
		return
	}
	s.ended = true
	var err error
	unmounted := harness.Eventually(10*time.Second, func() bool {
		if s.mode == harness.ModeFusermount {
			_, err = harness.Run("fusermount3", "-u", s.mnt)
		} else {
			err = unix.Unmount(s.mnt, 0)
		}
		return err == nil
	})
	if !unmounted {
		s.t.Errorf("unmounting %s: %v", s.mnt, err)
		_ = s.cmd.Process.Kill()
	}
	timer := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server of %s: %v", s.mnt, err)
	}
}
