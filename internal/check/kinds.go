package check

// Kind is what is wrong with an object.
type Kind string

// The kinds of damage: a mount refuses the layers, shows an error or another tree than before, or
// ignores a mark that was made on purpose.
const (
	OrphanWhiteout    Kind = "orphan whiteout"
	ForeignMarker     Kind = "foreign marker"
	DataUnderMarker   Kind = "data under a marker"
	WhiteoutOnData    Kind = "whiteout mark on data"
	WhiteoutIgnored   Kind = "ignored whiteout mark"
	InvalidOpaque     Kind = "invalid opaque mark"
	OpaqueOnFile      Kind = "opaque mark on a file"
	ImpureOnFile      Kind = "impure mark on a file"
	MissingImpure     Kind = "missing impure mark"
	InvalidRedirect   Kind = "invalid redirect"
	BrokenRedirect    Kind = "broken redirect"
	UntrustedRedirect Kind = "untrusted redirect"
	TwoRedirects      Kind = "two redirects to one directory"
	RedirectOnSpecial Kind = "redirect on a special file"
	InvalidMetacopy   Kind = "invalid metacopy"
	BrokenMetacopy    Kind = "metacopy without data"
	ShortData         Kind = "metacopy longer than its data"
	OtherData         Kind = "metacopy of other data"
	UntrustedMetacopy Kind = "untrusted metacopy"
	MetacopyOnOther   Kind = "metacopy mark on no file"
	InvalidOrigin     Kind = "invalid origin"
	BrokenOrigin      Kind = "broken origin"
	ForeignOrigin     Kind = "foreign origin"
	OtherTypeOrigin   Kind = "origin of another type"
	TwoCopies         Kind = "two copies of one origin"
	InvalidUUID       Kind = "invalid uuid"
	UUIDBelowRoot     Kind = "uuid below the root"
	UpperMark         Kind = "upper mark outside the index"
	UnknownMark       Kind = "unknown mark"
	InvalidNlink      Kind = "invalid link count"
	InvalidProtattr   Kind = "invalid protattr"
	FlaggedInode      Kind = "immutable inode"
	InvalidOwner      Kind = "invalid owner mark"
	Unreadable        Kind = "unreadable object"
	UsedTwice         Kind = "directory used twice"
	InsideUpper       Kind = "directory inside the upper"
	OtherFileSystem   Kind = "work on another file system"
	ForeignInWork     Kind = "foreign entry in work"
	NoDirInWork       Kind = "no directory in work"
	WrongOwner        Kind = "wrong owner of work"
	WrongMode         Kind = "wrong mode of work"
	VolatileMark      Kind = "volatile mark"
	UnknownFeature    Kind = "unknown feature of work"
	Leftover          Kind = "leftover in work"
	OtherLower        Kind = "index of another lower"
	OtherUpper        Kind = "index of another upper"
	UnknownEntry      Kind = "unknown index entry"
	EntryNoOrigin     Kind = "index entry without origin"
	EntryOtherOrigin  Kind = "index entry of another origin"
	EntryOfNothing    Kind = "index entry of nothing"
	EntryOtherType    Kind = "index entry of another type"
	EntryForeign      Kind = "index entry of another file system"
	EntryUnnamed      Kind = "index entry without names"
)

// The kinds that are no damage.
const (
	LowestWhiteout  Kind = "whiteout in the lowest layer"
	UselessWhiteout Kind = "whiteout that hides nothing"
	UselessOpaque   Kind = "opaque mark that hides nothing"
	MarkerBeside    Kind = "marker beside its object"
	UselessRedirect Kind = "redirect without effect"
	OldRootOrigin   Kind = "root of another lower"
	Unswept         Kind = "unswept object in work"
	UnindexedNlink  Kind = "link count without index"
)

// Description is what a kind means.
type Description struct {
	Kind    Kind
	Meaning string
	Note    bool // it is no damage
	Repairs bool // some findings of the kind can be repaired
}

// descriptions are those of all kinds, in the order of the manual.
var descriptions = []Description{
	{OrphanWhiteout, "no layer below has the directory that it is in, so it hides nothing", false, true},
	{ForeignMarker, "a name that begins with .wh. hides itself and nothing else", false, true},
	{DataUnderMarker, "an object with data has the name of a marker, so that no mount shows it", false, false},
	{WhiteoutOnData, "only an empty file can be a whiteout, so the mark is ignored", false, true},
	{WhiteoutIgnored, "its directory allows no such whiteouts, so it shows as an empty file", false, false},
	{InvalidOpaque, "the value of the mark is not known, so the directory is not opaque", false, true},
	{OpaqueOnFile, "only directories can be opaque, so the mark is ignored", false, true},
	{ImpureOnFile, "only directories can be impure, so the mark is ignored", false, true},
	{MissingImpure, "the copies in it get other inode numbers at each mount", false, true},
	{InvalidRedirect, "its value is not a path, so the object cannot be used", false, true},
	{BrokenRedirect, "no layer below has the directory, so what was in it is missing", false, false},
	{UntrustedRedirect, "any user may have written it, so the directory cannot be used", false, false},
	{TwoRedirects, "the content of one directory shows under two paths", false, false},
	{RedirectOnSpecial, "only directories and files can be redirected, so the mark is ignored", false, true},
	{InvalidMetacopy, "the value of the mark is not known, so the file cannot be used", false, false},
	{BrokenMetacopy, "no layer below has its data, so it cannot be read", false, false},
	{ShortData, "the file with its data is shorter, so its end reads as nothing", false, false},
	{OtherData, "its data does not have the digest in the mark", false, false},
	{UntrustedMetacopy, "any user may have written the mark, so the file cannot be used", false, false},
	{MetacopyOnOther, "only regular files can be metacopies, so the mark is ignored", false, true},
	{InvalidOrigin, "its value is not a file handle, so the inode number changes at each mount", false, true},
	{BrokenOrigin, "the object that it was copied from does not exist any more", false, true},
	{ForeignOrigin, "it was copied from a file system that no lower lies on", false, true},
	{OtherTypeOrigin, "the object that it was copied from is of another type", false, true},
	{TwoCopies, "another object has the same origin, so one gets another inode number", false, true},
	{InvalidUUID, "the UUID of the upper has not 16 bytes", false, true},
	{UUIDBelowRoot, "only the root of an upper has a UUID, so the mark is ignored", false, true},
	{UpperMark, "only the index has this mark, so it is ignored", false, true},
	{UnknownMark, "no attribute of the overlay has this name", false, false},
	{InvalidNlink, "the link count is not a number, so links in lowers are not counted", false, false},
	{InvalidProtattr, "its value is not known, so the object has neither of the flags", false, true},
	{FlaggedInode, "the inode itself has the flag, so a mount cannot change its marks", false, false},
	{InvalidOwner, "owner and mode make no sense, so the object cannot be used", false, false},
	{Unreadable, "reading it has failed", false, false},
	{UsedTwice, "upper or work directory is also another directory of the overlay", false, false},
	{InsideUpper, "a directory of the overlay lies in its upper, and shows in the mount", false, false},
	{OtherFileSystem, "upper and work directory must be on one file system", false, false},
	{ForeignInWork, "a mount refuses a work directory with other content", false, false},
	{NoDirInWork, "a directory of this name is needed, so that a mount fails", false, false},
	{WrongOwner, "another user can replace what a mount prepares", false, true},
	{WrongMode, "other users can write to it, and replace what a mount prepares", false, true},
	{VolatileMark, "the last mount was volatile: a crash of the machine may have lost data", false, false},
	{UnknownFeature, "the last mount has used a feature that is not known here", false, false},
	{Leftover, "no mount shows it, and the next one removes it", false, true},
	{OtherLower, "the index was made with another first lower: a mount with index=on fails", false, false},
	{OtherUpper, "the index was made with another upper: a mount with index=on fails", false, false},
	{UnknownEntry, "its name is not a file handle: a mount with index=on fails", false, false},
	{EntryNoOrigin, "the copy has no origin: a mount with index=on fails", false, true},
	{EntryOtherOrigin, "the copy has another origin than its name, and is not used", false, true},
	{EntryOfNothing, "the object that it is a copy of is gone; the next mount removes it", false, false},
	{EntryOtherType, "the object that it is a copy of is of another type", false, false},
	{EntryForeign, "it is a copy of an object of a file system that no lower lies on", false, false},
	{EntryUnnamed, "all names of the object are gone, but not its copy", false, true},

	{LowestWhiteout, "there is no layer below", true, false},
	{UselessWhiteout, "no layer below has the name that it hides", true, true},
	{UselessOpaque, "no layer below has a directory of this name", true, false},
	{MarkerBeside, "the marker hides what the layers below have under the name", true, false},
	{UselessRedirect, "nothing of the layers below shows in an opaque directory", true, false},
	{OldRootOrigin, "the first lower was another one; that counts with index=on only", true, false},
	{Unswept, "other programs leave such objects there, and the next mount removes it", true, false},
	{UnindexedNlink, "the copy was in an index that is gone", true, false},
}

// Kinds returns the descriptions of all kinds.
func Kinds() []Description { return descriptions }

// byKind are the descriptions by kind.
var byKind = func() map[Kind]Description {
	all := map[Kind]Description{}
	for _, d := range descriptions {
		all[d.Kind] = d
	}
	return all
}()
