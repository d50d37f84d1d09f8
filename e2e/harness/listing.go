package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of getdents64(2).
type Dirent struct {
	Name string
	Off  int64
	Kind uint8 // DT_*

	ino uint64
}

// ListDir lists a directory with a buffer of the given size, "." and ".." included.
func ListDir(dir string, size int) ([]Dirent, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Dirent
	for {
		entries, err := Getdents(f, size)
		if err != nil || len(entries) == 0 {
			return all, err
		}
		all = append(all, entries...)
	}
}

// Getdents makes one call of getdents64(2): the next entries that fit a buffer of the given size.
func Getdents(f *os.File, size int) ([]Dirent, error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(int(f.Fd()), buf)
	if err != nil {
		return nil, fmt.Errorf("getdents: %w", err)
	}
	var entries []Dirent
	for rest := buf[:n]; len(rest) > 0; {
		length := binary.LittleEndian.Uint16(rest[16:])
		name, _, _ := bytes.Cut(rest[19:length], []byte{0})
		entries = append(entries, Dirent{
			Name: string(name), Off: int64(binary.LittleEndian.Uint64(rest[8:])), Kind: rest[18],
			ino: binary.LittleEndian.Uint64(rest),
		})
		rest = rest[length:]
	}
	return entries, nil
}

// IdentityFaults walks a mount and lists the objects whose d_ino differs from st_ino, whose d_type
// differs from the type, and whose st_dev differs from that of the root.
func IdentityFaults(root string) string {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return err.Error()
	}
	var b strings.Builder
	identityFaults(&b, root, top.Dev)
	return b.String()
}

func identityFaults(b *strings.Builder, dir string, dev uint64) {
	entries, err := ListDir(dir, 32<<10)
	if err != nil {
		fmt.Fprintf(b, "%s: %v\n", dir, err)
		return
	}
	for _, entry := range entries {
		if entry.Name == "." || entry.Name == ".." {
			continue
		}
		path := filepath.Join(dir, entry.Name)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			fmt.Fprintf(b, "%s: %v\n", path, err)
			continue
		}
		if st.Ino != entry.ino || st.Dev != dev {
			fmt.Fprintf(b, "%s: d_ino %d, st_ino %d, st_dev %d of %d\n", path, entry.ino, st.Ino, st.Dev, dev)
		}
		if st.Mode&unix.S_IFMT != uint32(entry.Kind)<<12 {
			fmt.Fprintf(b, "%s: d_type %d, st_mode %o\n", path, entry.Kind, st.Mode)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			identityFaults(b, path, dev)
		}
	}
}
