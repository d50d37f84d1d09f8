package owner

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

func words(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestIDsInACLs(t *testing.T) {
	m := mapped(t, "0:1000:10", "0:2000:10")
	disk := words(uint32(2), uint16(1), uint16(6), ^uint32(0), uint16(2), uint16(4), uint32(3), uint16(4), uint16(4), ^uint32(0),
		uint16(8), uint16(4), uint32(5), uint16(0x10), uint16(4), ^uint32(0), uint16(0x20), uint16(4), ^uint32(0))
	shown := words(uint32(2), uint16(1), uint16(6), ^uint32(0), uint16(2), uint16(4), uint32(1003), uint16(4), uint16(4), ^uint32(0),
		uint16(8), uint16(4), uint32(2005), uint16(0x10), uint16(4), ^uint32(0), uint16(0x20), uint16(4), ^uint32(0))
	before := bytes.Clone(disk)
	for _, name := range []string{ondisk.AccessACL, ondisk.DefaultACL} {
		if got := translate(name, disk, m.show); !bytes.Equal(got, shown) {
			t.Errorf("%s is shown as % x, want % x", name, got, shown)
		}
		if got := translate(name, shown, m.store); !bytes.Equal(got, disk) {
			t.Errorf("%s is stored as % x, want % x", name, got, disk)
		}
	}
	if !bytes.Equal(disk, before) {
		t.Error("the value given was changed")
	}
}

func TestIDsInCapabilities(t *testing.T) {
	m := mapped(t, "0:200000:65536", "")
	data := words(uint32(0x2000), uint32(0), uint32(0), uint32(0))
	v2 := append(words(uint32(0x02000001)), data...)
	rootShown := append(append(words(uint32(0x03000001)), data...), words(uint32(200000))...)
	otherShown := append(append(words(uint32(0x03000001)), data...), words(uint32(200009))...)
	otherDisk := append(append(words(uint32(0x03000001)), data...), words(uint32(9))...)
	if got := translate(ondisk.Capability, rootShown, m.store); !bytes.Equal(got, v2) {
		t.Errorf("those for the container's root are stored as % x, want % x", got, v2)
	}
	if got := translate(ondisk.Capability, otherShown, m.store); !bytes.Equal(got, otherDisk) {
		t.Errorf("those for another are stored as % x, want % x", got, otherDisk)
	}
	if got := translate(ondisk.Capability, otherDisk, m.show); !bytes.Equal(got, otherShown) {
		t.Errorf("those for another are shown as % x, want % x", got, otherShown)
	}
	if got := translate(ondisk.Capability, v2, m.show); !bytes.Equal(got, v2) {
		t.Errorf("those for the first namespace's root are shown as % x", got)
	}
}

// TestOddValues checks that translate does not change values of unknown layout: the kernel checks
// them.
func TestOddValues(t *testing.T) {
	m := mapped(t, "0:1000:10", "0:1000:10")
	for _, name := range []string{ondisk.AccessACL, ondisk.Capability, "user.x"} {
		for _, value := range [][]byte{nil, {1}, {1, 2, 3, 4, 5, 6, 7}, bytes.Repeat([]byte{2, 0, 0, 0}, 6)[:23]} {
			got := translate(name, value, m.show)
			if name != ondisk.AccessACL && !bytes.Equal(got, value) || len(got) != len(value) {
				t.Errorf("%s: % x became % x", name, value, got)
			}
		}
	}
}
