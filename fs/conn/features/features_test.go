package features

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestMissing(t *testing.T) {
	var all uint64
	var symbols []string
	for _, f := range Flags {
		if f.Bit == 0 || all&f.Bit != 0 || f.Name == "" || f.Without == "" {
			t.Errorf("%+v", f)
		}
		all |= f.Bit
		symbols = append(symbols, f.Symbol)
	}
	if got := Missing(0); !slices.Equal(got, symbols) {
		t.Errorf("of no flags %q are missing", got)
	}
	if got := Missing(all &^ Flags[2].Bit); !slices.Equal(got, []string{Flags[2].Symbol}) {
		t.Errorf("without %s: %q", Flags[2].Symbol, got)
	}
	if got := Missing(all); got != nil {
		t.Errorf("of all flags %q are missing", got)
	}
}

// A feature that could not be tried is neither there nor missing.
func TestUnknownFeature(t *testing.T) {
	var k Kernel
	k.add("a", "b", true, "")
	k.add("a", "b", false, "")
	k.add("a", "b", true, "not tried")
	for i, f := range k.Features {
		if want := []string{"true", "false", "nil"}[i]; here(f) != want {
			t.Errorf("%d: %s, want %s", i, here(f), want)
		}
	}
}

func here(f Feature) string {
	switch {
	case f.Here == nil:
		return "nil"
	case *f.Here:
		return "true"
	}
	return "false"
}

func TestRunApart(t *testing.T) {
	var out bytes.Buffer
	if RunApart(&out) || out.Len() > 0 {
		t.Error("a process that nothing has started does the work")
	}
	t.Setenv(apartVariable, "1")
	if !RunApart(&out) || !bytes.HasPrefix(out.Bytes(), []byte(`{"Protocol":`)) {
		t.Errorf("the process prints %s", &out)
	}
}

// Direct I/O needs the flag, and a kernel that writes back the pages themselves.
func TestDirectIO(t *testing.T) {
	const flag = fuse.CAP_DIRECT_IO_ALLOW_MMAP
	for _, tt := range []struct {
		offered uint64
		minor   uint32
		want    bool
	}{
		{flag, MinorOfPageWriteback, true},
		{flag, MinorOfPageWriteback - 1, false},
		{0, MinorOfPageWriteback, false},
	} {
		if DirectIO(tt.offered, tt.minor) != tt.want {
			t.Errorf("flags %#x, protocol 7.%d: want %v", tt.offered, tt.minor, tt.want)
		}
	}
}
