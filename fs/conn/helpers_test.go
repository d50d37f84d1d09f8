package conn

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

func newConn(t *testing.T, cfg Config) *Conn {
	t.Helper()
	c, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// oneFile is a file system whose nodes are all files with one text.
type oneFile struct {
	fuse.RawFileSystem
	gate Gate
	text string
}

func newOneFile(text string) *oneFile {
	return &oneFile{RawFileSystem: fuse.NewDefaultRawFileSystem(), text: text}
}

func (f *oneFile) Connected(Policy, *fuse.Server) {}
func (f *oneFile) Gate() *Gate                    { return &f.gate }
func (f *oneFile) ReadData(_ *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	return copy(buf, f.text), fuse.OK
}
func (f *oneFile) ForgetAll([]wire.Forget)          {}
func (f *oneFile) SyncFS() fuse.Status              { return fuse.OK }
func (f *oneFile) Failed(Request, fuse.Status) bool { return false }
func (f *oneFile) Idle() bool                       { return false }
func (f *oneFile) Reconcile(Redo)                   {}
func (f *oneFile) Reconciled()                      {}
func (f *oneFile) Child(uint64, string) uint64      { return 0 }
func (f *oneFile) CreateAgain(*fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}
