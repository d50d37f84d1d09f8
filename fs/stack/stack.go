package stack

import (
	"slices"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Stack is the layers of one overlay. It is immutable after Open and ExpectChanges, but for atomic
// fields.
type Stack struct {
	layers      []layer  // layers[Upper].root is nil without an upper
	workRoot    *sys.Dir // the work directory, locked
	createdWork bool     // Open has made it
	staging     *sys.Dir // work/work
	work        *copyup.Work
	copier      *copyup.Copier
	whiteouts   *whiteout.Maker  // nil unless the upper can be changed
	xattrs      ondisk.Namespace // of the upper
	names       ondisk.Names
	acl         bool

	dataOnly []*sys.Dir // roots of the data-only layers
	metacopy bool       // metacopy=on: metacopies are followed and made
	verity   Verity
	digest   func(*sys.File) (sys.Digest, error) // [sys.File.Verity]

	index    *sys.Dir // index=on: the copies of objects with several links; nil: a copy-up breaks links
	warnings []string

	sources        []source // the file systems of the lowers
	omitUUIDs      bool     // handles are written without the UUID of their file system
	overridesTypes bool     // the type of objects of some layer is in an xattr

	redirects Redirects
	overlap   bool   // layers lie inside each other
	hostRoot  bool   // the daemon is root of the first user namespace
	overflow  uint32 // the user id of objects whose owner is outside of the daemon's namespace

	listAtOnce bool // no directory is left unlisted

	layersChange bool // other processes change the layers
	remote       bool // a lower may lie on the file system of a server

	afterVolatile bool // the mount before was volatile

	uid, gid uint32 // of the daemon: an object made in the upper belongs to them
}

type layer struct {
	root *sys.Dir
	dev  uint64
	// ownedBelow: a user with fewer rights than the daemon may own the layer, see
	// [Stack.isOwnedBelow].
	ownedBelow bool
	// shown is how the layer's objects look through the mount. onDisk is how the layer has them:
	// copies from layer to layer keep ids that the mount does not show.
	shown, onDisk *owner.Scheme
}

// Shown returns an object of a layer as it looks through the mount.
func (s *Stack) Shown(layer int, r sys.Ref) owner.Ref { return s.layers[layer].shown.On(r) }

// OnDisk is how a layer has its objects. Ids are not mapped.
func (s *Stack) OnDisk(layer int) *owner.Scheme { return s.layers[layer].onDisk }

// Names are the xattrs that belong to the overlay.
func (s *Stack) Names() ondisk.Names { return s.names }

// Overlap reports whether layers lie inside each other, so that one object of a layer can show in
// two places.
func (s *Stack) Overlap() bool { return s.overlap }

// Format is the form of whiteouts and opaque directories in the upper. Precondition: writable.
func (s *Stack) Format() whiteout.Format { return s.whiteouts.Forms.Default }

// OrdersCopyUps reports whether copy-ups need no fsync: the upper's file system writes the data
// before the rename.
func (s *Stack) OrdersCopyUps() bool { return s.work != nil && s.work.Ordered() }

// Writable reports whether there is an upper and it can be changed.
func (s *Stack) Writable() bool { return s.work != nil }

// Root is the opened root of a layer.
func (s *Stack) Root(layer int) *sys.Dir { return s.layers[layer].root }

// RootDir is the merged directory at the top.
func (s *Stack) RootDir() Dir {
	var in []uint16
	for i, l := range s.layers {
		if l.root != nil {
			in = append(in, uint16(i))
		}
	}
	return Dir{layers: in}
}

// Devices are the device numbers of the layers' file systems, each once, in the order of the
// layers, as the kernel's overlayfs numbers them. The first is that of the upper. If there is no
// upper and the lowers lie on several file systems, the first is 0, which no device has.
func (s *Stack) Devices() []uint64 {
	var devs []uint64
	for _, l := range s.layers {
		if l.root != nil && !slices.Contains(devs, l.dev) {
			devs = append(devs, l.dev)
		}
	}
	if s.layers[Upper].root == nil && len(devs) > 1 {
		devs = append([]uint64{0}, devs...)
	}
	return devs
}

// HasBirthTimes reports whether the file systems of all layers have times of birth.
func (s *Stack) HasBirthTimes() bool {
	var asked []uint64
	for _, l := range s.layers {
		if l.root == nil || slices.Contains(asked, l.dev) {
			continue
		}
		asked = append(asked, l.dev)
		if _, known, err := l.root.Ref().BirthTime(); err != nil || !known {
			return false
		}
	}
	return true
}

// Device is the device number of a layer's root.
func (s *Stack) Device(layer int) uint64 { return s.layers[layer].dev }

// ReadsQuietly reports whether the upper's files have to be opened with O_NOATIME.
func (s *Stack) ReadsQuietly() bool { return s.layers[Upper].root.Quiet() }

// Close closes the layers and unlocks the upper.
func (s *Stack) Close() {
	for _, l := range s.layers {
		if l.root != nil {
			l.root.Close()
		}
	}
	for _, root := range s.dataOnly {
		root.Close()
	}
	if s.whiteouts != nil {
		s.whiteouts.Close()
	}
	if s.staging != nil {
		s.staging.Close()
	}
	if s.index != nil {
		s.index.Close()
	}
	if s.workRoot != nil {
		s.workRoot.Close()
	}
}
