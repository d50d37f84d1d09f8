package commands

import "path/filepath"

// Program is the file name of the second program.
const Program = "fuse-overlay-commands"

// libexec is the folder of the second program in an installation, relative to the folder of
// fuse-overlay.
const libexec = "../libexec/fuse-overlay"

// Places returns the paths at which the second program may be, in order. self is the path of the
// file of fuse-overlay, without symbolic links. Folders of PATH are none of them: another user may
// be able to write there.
func Places(self string) []string {
	dir := filepath.Dir(self)
	return []string{filepath.Join(dir, Program), filepath.Join(dir, libexec, Program)}
}
