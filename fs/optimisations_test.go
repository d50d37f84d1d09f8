package fs

import "testing"

// An optimisation that is turned off does nothing.
func TestOptimisationsAreTurnedOff(t *testing.T) {
	c := newFolders(t, "", letters('a', 'h'))
	c.Disabled = ListingSamples | Prefetch
	s := openSite(t, c)
	dir, err := s.walk("d")
	must(t, err)
	entries, err := s.list(dir, 4096)
	must(t, err)
	for _, e := range entries {
		if e.entry.NodeId == 0 && e.name != "." && e.name != ".." {
			t.Errorf("samples: %s is listed without attributes", e.name)
		}
	}
	for _, e := range entries {
		if e.entry.NodeId != 0 {
			_, err := s.readNode(e.entry.NodeId, 0, 8192)
			must(t, err)
		}
	}
	if s.o.prefetch.readNext(&s.o.access) {
		t.Error("prefetch: a file was read ahead")
	}
}
