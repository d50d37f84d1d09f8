package rights

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A write drops sgid of a file that its group may not execute if the caller is not in that group
// (xfstests generic/683 to 685).
func TestSgidWithoutGroupExecute(t *testing.T) {
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		changes := map[string]func(path string) error{
			"append":   harness.AppendErr,
			"truncate": func(p string) error { return os.Truncate(p, 1) },
			"otrunc":   func(p string) error { return os.WriteFile(p, []byte("n"), 0) },
			"fallocate": func(p string) error {
				f, err := os.OpenFile(p, os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				return unix.Fallocate(int(f.Fd()), 0, 0, 100)
			},
		}
		o := e.Overlay(t, "")
		for name := range changes {
			for _, who := range []string{"stranger", "member", "supplementary"} {
				file := filepath.Join(o.Lowers[0], name+"-"+who)
				harness.Write(t, file, "text")
				harness.Check(t, os.Lchown(file, 0, 1005))
				harness.Check(t, os.Chmod(file, 0o666|os.ModeSetuid|os.ModeSetgid))
			}
		}
		o.Mount()
		for name, change := range changes {
			harness.AsGroups(t, 1000, 1000, []uint32{1006}, func() { harness.Check(t, change(o.Path(name+"-stranger"))) })
			harness.AsGroups(t, 1000, 1005, nil, func() { harness.Check(t, change(o.Path(name+"-member"))) })
			harness.AsGroups(t, 1000, 1000, []uint32{1005}, func() { harness.Check(t, change(o.Path(name+"-supplementary"))) })
		}
		for range 2 {
			for name := range changes {
				for who, mode := range map[string]uint16{"stranger": 0o666, "member": 0o2666, "supplementary": 0o2666} {
					harness.Equal(t, name+" by a "+who, harness.ModeAlone(t, o.Path(name+"-"+who)), mode)
				}
			}
			o.Remount()
		}
	})
}
