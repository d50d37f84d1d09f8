package engines

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// Trees of images by podman export.

// export is the tree of an image, a line for each object, by a container that does not run. Times
// after since, those of the build, are "now".
func (e *engine) export(t *testing.T, image string, since time.Time) map[string]string {
	t.Helper()
	id := strings.TrimSpace(e.podman(t, "create", image, "none"))
	defer func() { e.podman(t, "rm", id) }()
	tree := e.exportContainer(t, id, since)
	if len(tree) < 50 {
		t.Fatalf("podman export of %s has %d objects only", image, len(tree))
	}
	return tree
}

// never is a time for export after all times: they are shown as they are.
func never() time.Time { return time.Now().AddDate(100, 0, 0) }

// exportContainer is the tree of a container, as export has it.
func (e *engine) exportContainer(t *testing.T, id string, since time.Time) map[string]string {
	t.Helper()
	tree := map[string]string{}
	e.stream(t, func(r io.Reader) error {
		for archive := tar.NewReader(r); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				_, err = io.Copy(io.Discard, r)
				return err
			}
			if err != nil {
				return err
			}
			name := strings.Trim(h.Name, "/")
			line, err := describeHeader(h, archive, since)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if _, twice := tree[name]; twice {
				return fmt.Errorf("%s is in the archive twice", name)
			}
			tree[name] = name + " " + line
		}
	}, "bash", "-o", "pipefail", "-c", "podman export $0 | cat", id) // podman opens /dev/stdout, which is root's
	return tree
}

// describeHeader describes an object by its header in a tar archive.
func describeHeader(h *tar.Header, content io.Reader, since time.Time) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %04o %d:%d", h.Typeflag, h.Mode, h.Uid, h.Gid)
	if h.Typeflag != tar.TypeLink && h.ModTime.Before(since) {
		fmt.Fprintf(&b, " mtime %d.%09d", h.ModTime.Unix(), h.ModTime.Nanosecond())
	} else {
		b.WriteString(" mtime now")
	}
	switch h.Typeflag {
	case tar.TypeReg:
		sum := sha256.New()
		n, err := io.Copy(sum, content)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " size %d sha %x", n, sum.Sum(nil)[:8])
	case tar.TypeSymlink, tar.TypeLink:
		b.WriteString(" -> " + h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d/%d", h.Devmajor, h.Devminor)
	}
	var attrs []string
	for name, value := range h.PAXRecords {
		if xattr, ok := strings.CutPrefix(name, "SCHILY.xattr."); ok {
			attrs = append(attrs, fmt.Sprintf(" %s=%q", xattr, value))
		}
	}
	slices.Sort(attrs)
	return b.String() + strings.Join(attrs, ""), nil
}

// withoutRandom leaves out lines that differ between any two runs of the same commands.
func withoutRandom(tree map[string]string) map[string]string {
	kept := map[string]string{}
	for name, line := range tree {
		random := false
		for prefix := range legitimate {
			random = random || name == prefix || strings.HasPrefix(name, prefix+"/")
		}
		if !random {
			kept[name] = line
		}
	}
	return kept
}
