package owner

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	overflowUID = 65534
	overflowGID = 65533
)

func mapped(t *testing.T, uids, gids string) *IDs {
	t.Helper()
	m := &IDs{OverflowUID: overflowUID, OverflowGID: overflowGID}
	for text, to := range map[string]*Mapping{"u" + uids: &m.UIDs, "g" + gids: &m.GIDs} {
		if len(text) == 1 {
			continue
		}
		parsed, err := ParseMapping(text[1:])
		if err != nil {
			t.Fatal(err)
		}
		*to = parsed
	}
	return m
}

func TestIDsCrossBothWays(t *testing.T) {
	for _, tt := range []struct {
		mapping     string
		disk, shown uint32
	}{
		{":0:200000:65536", 0, 200000},
		{":0:200000:65536", 65535, 265535},
		{"0:1:1001:1001:0:1:1002:1002:64535", 0, 1}, // podman's keep-id
		{"0:1:1001:1001:0:1:1002:1002:64535", 1001, 0},
		{"0:1:1001:1001:0:1:1002:1002:64535", 1000, 1001},
		{"0:1:1001:1001:0:1:1002:1002:64535", 65536, 65536},
		{"4294967294:0:1", 4294967294, 0},
		{"100000:0:65536", 100033, 33},
	} {
		m := mapped(t, tt.mapping, tt.mapping)
		for _, c := range []class{users, groups} {
			if got := m.show(c, tt.disk); got != tt.shown {
				t.Errorf("%s: %d is shown as %d, want %d", tt.mapping, tt.disk, got, tt.shown)
			}
			if got := m.store(c, tt.shown); got != tt.disk {
				t.Errorf("%s: %d is stored as %d, want %d", tt.mapping, tt.shown, got, tt.disk)
			}
		}
	}
}

func TestUnmappedIDs(t *testing.T) {
	m := mapped(t, "10:200000:5", "10:200000:5")
	for _, id := range []uint32{0, 9, 15, 4294967294} {
		if got := m.show(users, id); got != overflowUID {
			t.Errorf("user %d is shown as %d", id, got)
		}
		if got := m.show(groups, id); got != overflowGID {
			t.Errorf("group %d is shown as %d", id, got)
		}
		if got := m.store(users, id); got != overflowUID {
			t.Errorf("user %d is stored as %d", id, got)
		}
	}
	if got := m.store(users, sys.Unchanged); got != sys.Unchanged {
		t.Errorf("sys.Unchanged is stored as %d", got)
	}
	// A mapping of users does not change groups.
	m = mapped(t, "0:5:1", "")
	if got := m.show(groups, 77); got != 77 {
		t.Errorf("group 77 is shown as %d without gidmapping", got)
	}
}

func TestSquash(t *testing.T) {
	m := mapped(t, "0:200000:10", "0:200000:10")
	m.UID = Squash{On: true, ID: 7}
	if u, g := m.show(users, 3), m.show(groups, 3); u != 7 || g != 200003 {
		t.Errorf("squash_to_uid shows %d:%d", u, g)
	}
	if u, g := m.store(users, 200001), m.store(groups, 200001); u != 7 || g != 1 {
		t.Errorf("squash_to_uid stores %d:%d", u, g)
	}
	m.KeepOwn = true
	if u, g := m.store(users, 200001), m.store(groups, 200001); u != sys.Unchanged || g != 1 {
		t.Errorf("a daemon that may not change owners stores %d:%d", u, g)
	}
}

func TestBadMappings(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "is not made of triplets",
		":":                       "is not made of triplets",
		"0:0":                     "is not made of triplets",
		"0:0:1:":                  "is not made of triplets",
		"a:0:1":                   `"a" is not a number`,
		"0: 0:1":                  `" 0" is not a number`,
		"0:4294967296:1":          `"4294967296" is not a number`,
		"0:0:0":                   "the length is 0",
		"4294967294:0:2":          "goes beyond the largest id",
		"0:4294967295:1":          "goes beyond the largest id",
		"0:0:10:9:100:1":          "overlaps another range",
		"0:0:10:100:9:1":          "overlaps another range",
		"5:0:1:100:200:1:0:300:6": "overlaps another range",
	} {
		m, err := ParseMapping(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want an error with %q", text, m, err, want)
		}
	}
}
