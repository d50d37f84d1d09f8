package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// Without a list of mounts, which fusermount3 needs, a plain user unmounts by umount(8).
func TestUnmountWithoutList(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755))
	}
	list := filepath.Join(dir, "mtab")
	const noList = "echo failed to open /etc/mtab >&2; exit 1"
	for _, tt := range []struct {
		fusermount, umount string
		listed             bool
		want               string // part of the error
	}{
		{"", "exit 1", false, ""},
		{noList, "test $# = 1 -a \"$1\" = /m", false, ""},
		{noList, "echo umount: /m: target is busy. >&2; exit 32", false, unix.EBUSY.Error()},
		{noList, "exit 32", false, "failed to open /etc/mtab; make " + list + " a link to /proc/self/mounts"},
		{"echo device or resource busy >&2; exit 1", "", false, unix.EBUSY.Error()},
		{noList, "", true, "failed to open /etc/mtab"},
	} {
		script("fusermount3", tt.fusermount)
		script("umount", tt.umount)
		_ = os.Remove(list)
		if tt.listed {
			must(t, os.WriteFile(list, nil, 0o644))
		}
		err := unmountByHelper("/m", list)
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
