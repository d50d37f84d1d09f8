package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// getdents makes one getdents64 call: the next entries that fit a buffer of the given size.
func getdents(f *os.File, size int) ([]dirent, error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(int(f.Fd()), buf)
	if err != nil {
		return nil, fmt.Errorf("getdents: %w", err)
	}
	var entries []dirent
	for rest := buf[:n]; len(rest) > 0; {
		length := binary.LittleEndian.Uint16(rest[16:])
		name, _, _ := bytes.Cut(rest[19:length], []byte{0})
		entries = append(entries, dirent{
			name: string(name), ino: binary.LittleEndian.Uint64(rest), off: int64(binary.LittleEndian.Uint64(rest[8:])), kind: rest[18],
		})
		rest = rest[length:]
	}
	return entries, nil
}
