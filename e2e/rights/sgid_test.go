package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A write drops sgid of a file that its group may not execute if the caller is not in that group (xfstests generic/683 to 685).
func TestSgidWithoutGroupExecute(t *testing.T) {
	eachIO(t, rootModes, func(t *testing.T, e *env) {
		changes := map[string]func(path string) error{
			"append":   appendErr,
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
		o := e.overlay(t, "")
		for name := range changes {
			for _, who := range []string{"stranger", "member", "supplementary"} {
				file := filepath.Join(o.lowers[0], name+"-"+who)
				write(t, file, "text")
				check(t, os.Lchown(file, 0, 1005))
				check(t, os.Chmod(file, 0o666|os.ModeSetuid|os.ModeSetgid))
			}
		}
		o.mount()
		for name, change := range changes {
			asGroups(t, 1000, 1000, []uint32{1006}, func() { check(t, change(o.path(name+"-stranger"))) })
			asGroups(t, 1000, 1005, nil, func() { check(t, change(o.path(name+"-member"))) })
			asGroups(t, 1000, 1000, []uint32{1005}, func() { check(t, change(o.path(name+"-supplementary"))) })
		}
		for range 2 {
			for name := range changes {
				for who, mode := range map[string]uint16{"stranger": 0o666, "member": 0o2666, "supplementary": 0o2666} {
					equal(t, name+" by a "+who, modeAlone(t, o.path(name+"-"+who)), mode)
				}
			}
			o.remount()
		}
	})
}
