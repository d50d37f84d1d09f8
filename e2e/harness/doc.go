// Package harness is what the packages of end-to-end tests share. It mounts the built program, or
// the kernel's overlayfs in its place, as root, in a user namespace and as a plain user, and gives
// each test a fresh folder. It builds and compares trees, counts requests, reads the tables of
// processes and mounts, and fails the run for a mount, a process or a descriptor that is left
// behind.
//
// A package of tests calls Main in its TestMain. A test calls EachMode, and mounts in the Env that
// it gets:
//
//	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
//		o := e.Mounted(t, `file dir/name "text"`)
//		harness.AppendTo(t, o.Path("dir/name"), "+")
//		harness.WantTree(t, "the upper", o.Upper, `file dir/name "text+"`)
//	})
//
// It does not look inside the program, and it decides nothing about what the program should do.
package harness
