package stack

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// ProbeFile makes an unlinked regular file on the upper's file system, to try what that file system
// can do. Without an upper it makes a file in memory.
func (s *Stack) ProbeFile() (*sys.File, error) {
	if !s.Writable() {
		return sys.MemoryFile()
	}
	name := s.work.Name()
	f, err := s.staging.CreateFile(name, 0o600)
	if err != nil {
		return nil, err
	}
	if err := s.staging.Unlink(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
