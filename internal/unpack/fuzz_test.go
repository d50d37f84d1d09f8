package unpack

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// An archive is unpacked or refused. Its headers get right checksums, so that most changes reach
// what reads them. The folder around the layer never changes, and after an error
// no part of the layer is left.
func FuzzArchive(f *testing.F) {
	f.Add(archive(f, dir("d"), file("d/f", "x").with("user.x", "y"), symlink("s", "/tmp"), hardlink("l", "d/f"), marker("d/.wh.x")))
	f.Add(archive(f, symlink("d", ".."), file("d/f", "x"), hardlink("l", "../../x"), marker(".wh...")))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		for at := 0; at+512 <= len(data); at += 512 {
			if block := data[at : at+512]; string(block[257:262]) == "ustar" {
				checksum(block)
			}
		}
		folder := t.TempDir()
		target := filepath.Join(folder, "layer")
		err := Unpack(context.Background(), bytes.NewReader(data), target, Options{Warn: func(string) {}})
		entries, readErr := os.ReadDir(folder)
		must(t, readErr)
		if err != nil && len(entries) > 0 || err == nil && (len(entries) != 1 || entries[0].Name() != "layer") {
			t.Errorf("%v, and the folder has %v", err, entries)
		}
	})
}
