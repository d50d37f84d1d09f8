package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The program is found on PATH. Without PATH it is found where it usually lies: mount(8) empties
// the environment for a plain user.
func TestFindMountProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, mountProgram)
	if err := os.WriteFile(program, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	for _, d := range []string{"/nonexistent", dir} { // not there, not executable
		if _, err := findMountProgram(d); err == nil || !strings.Contains(err.Error(), "needs the program fusermount3") {
			t.Errorf("in %s: got %v", d, err)
		}
	}
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	if path, err := findMountProgram(dir); err != nil || path != program {
		t.Errorf("without PATH: %q, %v", path, err)
	}
	t.Setenv("PATH", dir)
	if path, err := findMountProgram("/nonexistent"); err != nil || path != program {
		t.Errorf("on PATH: %q, %v", path, err)
	}
}
