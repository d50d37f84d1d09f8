package faults

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Lowers on file systems that stop replying, such as NFS without its server.

// envStall is set for the process that serves such a file system, see serveStalling.
const envStall = "FUSE_OVERLAY_E2E_STALL"

// stalling shows a folder, and replies to nothing while it is stalled.
type stalling struct {
	fuse.RawFileSystem
	mu sync.RWMutex // held to stall
}

func (s *stalling) answer() {
	s.mu.RLock()
	defer s.mu.RUnlock()
}

func (s *stalling) Lookup(c <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.answer()
	return s.RawFileSystem.Lookup(c, h, name, out)
}

func (s *stalling) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.answer()
	return s.RawFileSystem.GetAttr(c, in, out)
}

func (s *stalling) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.answer()
	return s.RawFileSystem.Open(c, in, out)
}

func (s *stalling) Read(c <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	s.answer()
	return s.RawFileSystem.Read(c, in, buf)
}

func (s *stalling) Flush(c <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	s.answer()
	return s.RawFileSystem.Flush(c, in)
}

func (s *stalling) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.answer()
	return s.RawFileSystem.OpenDir(c, in, out)
}

func (s *stalling) ReadDir(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.answer()
	return s.RawFileSystem.ReadDir(c, in, out)
}

func (s *stalling) ReadDirPlus(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.answer()
	return s.RawFileSystem.ReadDirPlus(c, in, out)
}

func (s *stalling) GetXAttr(c <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	s.answer()
	return s.RawFileSystem.GetXAttr(c, h, attr, dest)
}

func (s *stalling) ListXAttr(c <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	s.answer()
	return s.RawFileSystem.ListXAttr(c, h, dest)
}

// serveStalling is the role of a process that serves such a file system. SIGUSR1 stalls it, SIGUSR2
// lets it reply again.
func serveStalling(words string) error {
	var folder, mnt string
	if _, err := fmt.Sscan(words, &folder, &mnt); err != nil {
		return err
	}
	root, err := gofs.NewLoopbackRoot(folder)
	if err != nil {
		return err
	}
	privileged := os.Geteuid() == 0
	s := &stalling{RawFileSystem: gofs.NewNodeFS(root, &gofs.Options{})}
	server, err := fuse.NewServer(s, mnt, &fuse.MountOptions{
		FsName: "stalling", Name: "stalling", AllowOther: privileged, DirectMountStrict: privileged, MaxBackground: 512,
	})
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for sig := range signals {
			if sig == syscall.SIGUSR1 {
				s.mu.Lock()
			} else {
				s.mu.Unlock()
			}
			fmt.Println("done")
		}
	}()
	server.Wait()
	return nil
}

// stall is a file system that can be stalled.
type stall struct {
	*server
	stalled bool
}

// newStall shows a folder until the test ends.
func newStall(e *harness.Env, t *testing.T, folder string) *stall {
	t.Helper()
	mnt := filepath.Join(e.Dir, "stalling")
	s := &stall{server: startServer(t, e.Mode, envStall, fmt.Sprint(folder, " ", mnt), mnt)}
	t.Cleanup(s.answer) // before the unmount
	return s
}

// stop stalls the file system.
func (s *stall) stop() {
	s.t.Helper()
	harness.Check(s.t, s.cmd.Process.Signal(syscall.SIGUSR1))
	s.expect("done\n")
	s.stalled = true
}

// answer makes the file system reply again.
func (s *stall) answer() {
	if s.stalled {
		s.stalled = false
		harness.Check(s.t, s.cmd.Process.Signal(syscall.SIGUSR2))
		s.expect("done\n")
	}
}
