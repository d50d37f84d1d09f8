package fs

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// checkedReplies is a device that reports malformed replies.
type checkedReplies struct {
	t       *testing.T
	replies int
}

func (c *checkedReplies) Write(reply []byte) error {
	c.replies++
	length, errno := binary.NativeEndian.Uint32(reply), -int32(binary.NativeEndian.Uint32(reply[4:]))
	switch {
	case int(length) != len(reply):
		c.t.Errorf("the header of a reply of %d bytes says %d", len(reply), length)
	case errno < 0 || errno >= 512: // fuse_dev_do_write
		c.t.Errorf("the reply has errno %d, which the kernel refuses", errno)
	case errno != 0 && len(reply) != wire.OutHeaderSize:
		c.t.Errorf("errno %v in a reply of %d bytes", unix.Errno(errno), len(reply))
	}
	return nil
}

// decoder returns go-fuse's decoder of the requests that a worker does not decode.
func (s *site) decoder() *fuse.ProtocolServer {
	p := fuse.NewProtocolServer(s.o, &fuse.MountOptions{})
	init := message(wire.OpInit, fuse.InitIn{Major: 7, Minor: 45}, "")
	p.HandleRequest([][]byte{init}, [][]byte{make([]byte, wire.PageSize)})
	return p
}

// takeMessage cuts a message off the input: an operation, a node, the size of what follows the
// header, and that.
func takeMessage(input []byte) (op wire.Opcode, msg, rest []byte) {
	const fixed = 4
	if len(input) < fixed {
		return 0, nil, nil
	}
	op = wire.Opcode(input[0])
	h := fuse.InHeader{NodeId: uint64(input[1] % 8), Caller: fuse.Caller{Owner: fuse.Owner{Uid: uint32(input[3] & 1)}}}
	body := input[fixed:min(fixed+int(input[2]), len(input))]
	return op, message(op, h, string(body)), input[fixed+len(body):]
}

// FuzzRequests serves messages that no kernel sends: cut off, with wrong sizes, nodes and names.
// Nothing panics, each reply is one that the kernel accepts, no request gets two, and no lower
// changes.
func FuzzRequests(f *testing.F) {
	add := func(messages ...string) {
		var all []byte
		for _, m := range messages {
			all = append(all, m...)
		}
		f.Add(all)
	}
	lookup := func(node byte, name string) string {
		return string([]byte{byte(wire.OpLookup), node, byte(len(name) + 1), 0}) + name + "\x00"
	}
	body := func(op wire.Opcode, node byte, fixed []byte, rest string) string {
		b := string(fixed[wire.InHeaderSize:]) + rest
		return string([]byte{byte(op), node, byte(len(b)), 0}) + b
	}
	add(lookup(1, "d"), lookup(2, "f"), body(wire.OpSetattr, 3, wire.Bytes(&fuse.SetAttrIn{}), ""))
	add(body(wire.OpMkdir, 1, wire.Bytes(&fuse.MkdirIn{Mode: 0o755}), "new\x00"), lookup(1, "new"))
	add(lookup(1, "f"), body(wire.OpWrite, 2, wire.Bytes(&fuse.WriteIn{Size: 4}), "text"))
	add(lookup(1, "f"), body(wire.OpRead, 2, wire.Bytes(&fuse.ReadIn{Size: 100}), ""))
	add(body(wire.OpReaddirplus, 1, wire.Bytes(&fuse.ReadIn{Size: 4096}), ""))
	add(body(wire.OpRename2, 1, wire.Bytes(&fuse.RenameIn{Newdir: 1}), "f\x00g\x00"))
	add(lookup(1, "f"), body(wire.OpSetxattr, 2, wire.Bytes(&fuse.SetXAttrIn{Size: 1}), "user.a\x00v"))
	add(lookup(1, "f"), body(wire.OpGetxattr, 2, wire.Bytes(&fuse.GetXAttrIn{Size: 1}), "user.overlay.opaque\x00"))
	add(body(wire.OpSymlink, 1, wire.Bytes(&fuse.InHeader{}), "s\x00f\x00"), body(wire.OpUnlink, 1, wire.Bytes(&fuse.InHeader{}), "f\x00"))
	add(string([]byte{byte(wire.OpBatchForget), 1, 24, 0}) + "\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00")
	for op := range 256 { // each opcode, also unknown ones: no body, a short one, nodes that are not known
		add(string([]byte{byte(op), 1, 0, 0}), string([]byte{byte(op), 1, 3, 1})+"abc", string([]byte{byte(op), 7, 40, 0})+strings.Repeat("\xff", 40),
			string([]byte{byte(op), 0, 8, 0})+strings.Repeat("\x00", 8))
	}

	f.Fuzz(func(t *testing.T, input []byte) {
		var log bytes.Buffer
		cfg := newFolders(t, "dir d\nfile d/u \"u\"", "file f \"text\"\ndir d\nfile d/f \"more\" mode=600\nlink l f\n")
		cfg.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m"}), zapcore.AddSync(&log), zap.ErrorLevel))
		before := testkit.Snapshot(t, cfg.Lowers[0])
		s := openSite(t, cfg)
		device := &checkedReplies{t: t}
		w := s.o.conn.NewWorker(conn.WorkerConfig{Handler: s.o, Device: device, MaxWrite: 1 << 16, Rest: s.decoder()})
		for n := 0; n < 32; n++ {
			op, msg, rest := takeMessage(input)
			if msg == nil {
				break
			}
			input = rest
			if op == wire.OpInit { // the kernel sends one
				continue
			}
			device.replies = 0
			copy(w.Buffer(), msg)
			w.Serve(len(msg))
			if device.replies > 1 {
				t.Errorf("%v got %d replies", op, device.replies)
			}
		}
		if bytes.Contains(log.Bytes(), []byte("panic")) {
			t.Errorf("the log: %s", log.String())
		}
		if after := testkit.Snapshot(t, cfg.Lowers[0]); after != before {
			t.Errorf("the lower was\n%s\nand is\n%s", before, after)
		}
	})
}
