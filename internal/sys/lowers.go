package sys

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenLowers opens the roots of read-only layers, each as [OpenLower] does. The layers of one mount
// share one clone of it, from their common ancestor on. Making and removing a mount costs more than
// everything else that opens a layer, and an engine has hundreds of layers side by side. After an
// error, failed is the index of its path.
func OpenLowers(paths []string) (dirs []*Dir, failed int, err error) {
	defer func() {
		if err != nil {
			for _, d := range dirs {
				d.Close()
			}
			dirs = nil
		}
	}()
	places := make([]lowerPlace, len(paths))
	for i, path := range paths {
		if places[i], err = findLower(path); err != nil {
			return nil, i, err
		}
	}
	clones := cloneCommon(places)
	defer func() {
		for _, c := range clones {
			c.root.Close()
		}
	}()
	for i, path := range paths {
		d := clones[places[i].mount].open(&places[i])
		if d == nil {
			if d, _, err = OpenLower(path); err != nil {
				return dirs, i, err
			}
		}
		dirs = append(dirs, d)
	}
	return dirs, 0, nil
}

// lowerPlace is where a layer lies.
type lowerPlace struct {
	mount    uint64
	path     string // without symbolic links; empty: not known
	dev, ino uint64
}

func findLower(path string) (p lowerPlace, err error) {
	fd, err := openTrusted(path)
	if err != nil {
		return p, err
	}
	defer func() { _ = unix.Close(fd) }()
	if p.mount, err = mountID(fd); err != nil {
		return p, err
	}
	var st Stat
	if err := unix.Fstat(fd, &st); err != nil {
		return p, err
	}
	p.dev, p.ino = st.Dev, st.Ino
	p.path, _ = os.Readlink(procFD + strconv.Itoa(fd)) // without /proc, each layer gets its own clone
	return p, nil
}

// commonClone is a read-only clone of a mount, from a directory on that holds several layers.
type commonClone struct {
	root *Dir
	path string
}

// cloneCommon makes a clone of each mount that several of the layers lie on, if the kernel allows
// it.
func cloneCommon(places []lowerPlace) map[uint64]*commonClone {
	common, several := map[uint64]string{}, map[uint64]bool{}
	for _, p := range places {
		if p.path == "" {
			continue
		}
		above, met := common[p.mount]
		if !met {
			above = p.path
		}
		common[p.mount], several[p.mount] = commonAncestor(above, p.path), met
	}
	clones := map[uint64]*commonClone{}
	for mount, path := range common {
		if !several[mount] {
			continue
		}
		d, id, err := openClone(path)
		if err != nil {
			continue
		}
		if id != mount { // the ancestor lies on another mount
			d.Close()
			continue
		}
		clones[mount] = &commonClone{d, path}
	}
	return clones
}

// openClone opens a layer as OpenLower does, but fails without a clone. It returns the id of the
// cloned mount.
func openClone(path string) (d *Dir, mount uint64, err error) {
	top, err := openTrusted(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = unix.Close(top) }()
	if mount, err = mountID(top); err != nil {
		return nil, 0, err
	}
	d, err = restrictedClone(top)
	return d, mount, err
}

// open opens a layer through the clone. nil: the layer is not there, because a mount lies between
// or a name has changed.
func (c *commonClone) open(p *lowerPlace) *Dir {
	if c == nil || p.path == "" {
		return nil
	}
	d, err := c.root.OpenDir(below(p.path, c.path))
	if err != nil {
		return nil
	}
	var st Stat
	if unix.Fstat(d.fd, &st) != nil || st.Dev != p.dev || st.Ino != p.ino {
		d.Close()
		return nil
	}
	c.root.handOver(d)
	return d
}
