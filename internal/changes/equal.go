package changes

import "github.com/fuse-overlay/fuse-overlay/internal/view"

// Compare returns in what an object differs from another. It reads the data of regular files, and
// not what is in directories.
func Compare(now, was *view.Node) (Aspects, error) { return compare(now, was, now.IsDir()) }
