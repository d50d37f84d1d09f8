package ondisk

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What Linux 6.18 wrote for a file of an ext4 file system.
const kernelWrote = "00fb1d00010123456789ab4cde8f0123456789abcd0d0000005ca43f7a"

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	value, err := hex.DecodeString(text)
	must(t, err)
	return value
}

func TestHandleAsTheKernelWritesIt(t *testing.T) {
	want := Handle{
		Handle: sys.Handle{Type: 1, ID: "\x0d\x00\x00\x00\x5c\xa4\x3f\x7a"},
		UUID:   [16]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd},
	}
	h, ok := ParseHandle(bytesOf(t, kernelWrote))
	if !ok || h != want {
		t.Errorf("it is read as %+v, %v", h, ok)
	}
	if got := hex.EncodeToString(want.Encode()); got != kernelWrote {
		t.Errorf("it is written as %s", got)
	}
	want.Upper = true
	if h, ok := ParseHandle(want.Encode()); !ok || h != want {
		t.Errorf("of the upper: %+v, %v", h, ok)
	}
}

// An invalid value, or one of an unknown version, holds no handle.
func TestBadHandles(t *testing.T) {
	for what, change := range map[string]func(v []byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"cut in the header":  func(v []byte) []byte { return v[:handleSize-1] },
		"cut in the handle":  func(v []byte) []byte { return v[:len(v)-1] },
		"later version":      func(v []byte) []byte { v[0] = 1; return v },
		"other magic":        func(v []byte) []byte { v[1] = 0xfa; return v },
		"shorter than it is": func(v []byte) []byte { v[2] = handleSize - 1; return v },
		"unknown flags":      func(v []byte) []byte { v[3] = 8; return v },
		"other byte order":   func(v []byte) []byte { v[3] = cpuEndian ^ handleBigEndian; return v },
	} {
		if h, ok := ParseHandle(change(bytesOf(t, kernelWrote))); ok {
			t.Errorf("%s: %+v", what, h)
		}
	}
	either := bytesOf(t, kernelWrote)
	either[3] = cpuEndian ^ handleBigEndian | handleAnyEndian
	if _, ok := ParseHandle(append(either, "more"...)); !ok {
		t.Error("one in any order of bytes, with something behind it, is refused")
	}
	for what, h := range map[string]sys.Handle{
		"too long": {Type: 1, ID: strings.Repeat("x", 240)}, "invalid": {Type: 0xff, ID: "x"}, "negative": {Type: -1, ID: "x"},
	} {
		if v := (Handle{Handle: h}).Encode(); v != nil {
			t.Errorf("%s: %x", what, v)
		}
	}
}

func FuzzParseHandle(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x00\xfb\x15\x00\x01................"))
	f.Fuzz(func(t *testing.T, value []byte) {
		h, ok := ParseHandle(value)
		if !ok {
			return
		}
		if again, ok := ParseHandle(h.Encode()); h.Type < 0xff && (!ok || again != h) {
			t.Errorf("%x is %+v and then %+v", value, h, again)
		}
	})
}
