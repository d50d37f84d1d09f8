package check

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// misplaced reports marks that have no meaning for the object that has them.
func (w *layerWalk) misplaced(o *object) {
	isDir, isFile := o.is(unix.S_IFDIR), o.is(unix.S_IFREG)
	for _, a := range o.marks.sortedAttrs() {
		var kind Kind
		switch {
		case a == ondisk.Opaque && !isDir:
			kind = OpaqueOnFile
		case a == ondisk.Impure && !isDir:
			kind = ImpureOnFile
		case a == ondisk.Redirect && !isDir && !isFile:
			kind = RedirectOnSpecial
		case a == ondisk.Metacopy && !isFile:
			kind = MetacopyOnOther
		case a == ondisk.Whiteout && !o.isEmptyFile():
			kind = WhiteoutOnData
		case a == ondisk.UUID && o.in != nil:
			kind = UUIDBelowRoot
		case a == ondisk.Upper:
			kind = UpperMark
		default:
			continue
		}
		w.add(kind, o.path, o.mark(a), w.removeMark(o, a))
	}
}

// values reports marks whose values make no sense.
func (w *layerWalk) values(o *object) {
	if _, has := o.marks[ondisk.Whiteout]; has && o.isEmptyFile() {
		w.add(WhiteoutIgnored, o.path, "", nil) // else it would be a whiteout
	}
	if ns, has := o.marks[ondisk.Nlink]; has {
		_, ok, err := ns.LinkCount(o.ref)
		switch {
		case err != nil:
			w.unreadable(o.path, err)
		case !ok:
			w.add(InvalidNlink, o.path, "", nil)
		case o.st.Nlink == 1 && w.isUpper():
			w.add(UnindexedNlink, o.path, "", nil)
		}
	}
	if ns, has := o.marks[ondisk.Protattr]; has {
		switch value, err := o.ref.GetXattr(o.mark(ondisk.Protattr)); {
		case err != nil:
			w.unreadable(o.path, err)
		case len(value) > 0 && ondisk.ParseProtattr(value) == 0:
			w.add(InvalidProtattr, o.path, "", w.repair(o, "remove "+ns.Name(ondisk.Protattr), func(_ *sys.Dir, r sys.Ref) error {
				return ns.SetProtattr(r, 0)
			}))
		}
	}
}

// ofDir reports values of a directory's marks that make no sense. It runs before the opaque marker
// counts.
func (w *layerWalk) ofDir(d *dir, o *object) {
	if _, has := o.marks[ondisk.Opaque]; has && !d.Opaque && !d.XattrWhiteouts {
		w.add(InvalidOpaque, d.path, "", w.removeMark(o, ondisk.Opaque))
	}
	if ns, has := o.marks[ondisk.UUID]; has && o.in == nil {
		if _, err := ns.HasUUID(d.Dir); err == unix.EINVAL {
			w.add(InvalidUUID, d.path, "", w.removeMark(o, ondisk.UUID))
		} else if err != nil {
			w.unreadable(d.path, err)
		}
	}
}

// flags reports an object of the upper whose inode cannot get marks.
func (w *layerWalk) flags(o *object) {
	flags, err := o.ref.Protection()
	if err != nil {
		w.unreadable(o.path, err)
		return
	}
	var names []string
	if flags&sys.FlagImmutable != 0 {
		names = append(names, "immutable (chattr +i)")
	}
	if flags&sys.FlagAppend != 0 {
		names = append(names, "append-only (chattr +a)")
	}
	if len(names) > 0 {
		w.add(FlaggedInode, o.path, strings.Join(names, ", "), nil)
	}
}
