package stack

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// ProbeFile makes a regular file on the upper's file system that has no name, to try on it what that file system can do; where
// there is no upper, a file in memory. It is gone when it is closed.
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
