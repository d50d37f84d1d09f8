package fs

import "testing"

// An optimisation that is turned off does nothing.
func TestOptimisationsAreTurnedOff(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp") // in memory, copies have names
	c := newFolders(t, "", letters('a', 'h'))
	c.Disabled = ListingSamples | Prefetch | PreparedTmpfile
	s := openSite(t, c, false)
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
	if s.o.readNext() {
		t.Error("prefetch: a file was read ahead")
	}
	s.o.PaceChanged(true)
	defer s.o.PaceChanged(false)
	s.do(s.chmod("d/a", 0o600))
	if s.o.Idle() {
		t.Error("tmpfile: a file was made for the next copy-up")
	}
}
