package tryout

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestNames(t *testing.T) {
	got := names([]Layer{{Point: "/"}, {Point: "/srv/a"}, {Point: "/srv-a"}, {Point: "/root"}})
	if want := []string{"root", "srv-a", "srv-a-2", "root-2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Writable mounts get an overlay. Devices and the kernel's file systems do not, read-only mounts
// and single files stay read-only.
func TestPlan(t *testing.T) {
	writable, covered := testkit.Mount(t, "tmpfs", "tmpfs", ""), testkit.Mount(t, "tmpfs", "tmpfs", "")
	readOnly, kernel := testkit.Mount(t, "tmpfs", "tmpfs", "ro"), testkit.Mount(t, "proc", "proc", "")
	testkit.MountAt(t, "tmpfs", "tmpfs", covered, "ro")
	file := t.TempDir() + "/file"
	testkit.Must(t, os.WriteFile(file, nil, 0o644))
	testkit.Must(t, unix.Mount(file, file, "", unix.MS_BIND, ""))
	t.Cleanup(func() { testkit.Must(t, unix.Unmount(file, 0)) })
	points, overlay, err := plan()
	testkit.Must(t, err)
	for path, want := range map[string]struct{ overlay, readOnly bool }{
		writable: {true, false}, covered: {false, true}, readOnly: {false, true}, kernel: {false, false}, file: {false, true},
		"/proc": {false, false}, "/dev": {false, false},
	} {
		i := slices.IndexFunc(points, func(m host.RootMount) bool { return m.To == path })
		if i < 0 {
			t.Errorf("%s is not in the plan", path)
			continue
		}
		if overlay[i] != want.overlay || points[i].ReadOnly != want.readOnly || points[i].From != path {
			t.Errorf("%s: overlay %v, %+v", path, overlay[i], points[i])
		}
	}
}

// A directory in which something is mounted is not removed.
func TestRemoveStopsAtMounts(t *testing.T) {
	dir := testkit.Mount(t, "tmpfs", "tmpfs", "")
	testkit.Must(t, os.WriteFile(dir+"/f", nil, 0o644))
	if err := remove(dir); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(dir + "/f"); err != nil {
		t.Error(err)
	}
}

// A mount that goes with its directory before it gets its overlay is not in the copy. One whose
// overlay cannot be mounted is, with a warning.
func TestMountThatGoes(t *testing.T) {
	brief, broken := t.TempDir()+"/brief", testkit.Mount(t, "tmpfs", "tmpfs", "")
	testkit.Must(t, os.Mkdir(brief, 0o755))
	testkit.Must(t, unix.Mount("tmpfs", brief, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(brief, unix.MNT_DETACH) }) // EINVAL: the program has done it
	program := t.TempDir() + "/program"
	testkit.Must(t, os.WriteFile(program, []byte(`#!/bin/sh
case $3 in
*lowerdir=`+brief+`,*) umount `+brief+` && rmdir `+brief+`; exit 1 ;;
*lowerdir=`+broken+`,*) exit 1 ;;
esac
`), 0o755))
	s := Session{dir: t.TempDir()}
	var warnings []string
	testkit.Must(t, s.mount(program, func(err error) { warnings = append(warnings, err.Error()) }))
	for path, there := range map[string]bool{brief: false, broken: true} {
		warned := slices.ContainsFunc(warnings, func(text string) bool { return strings.Contains(text, path) })
		copied := slices.ContainsFunc(s.root.Mounts, func(m host.RootMount) bool { return m.To == path })
		if warned != there || copied != there {
			t.Errorf("%s: in the copy %v, warnings %q", path, copied, warnings)
		}
	}
}
