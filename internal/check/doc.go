// Package check finds what is damaged in the layers and the work directory of an overlay, and
// repairs what can be repaired without losing data.
//
// It reads each layer object by object, and compares the marks in it with what the layers below
// show, as a view of these shows it (internal/view). What a mark is, is what packages whiteout,
// internal/ondisk, copyup and fs/stack read: the package has no rule of the format of its own. It
// has the list of what may be wrong ([Kinds]).
//
// Reading needs no lock and changes nothing. A repair needs the lock of the upper ([Writer]), which
// no mount holds at the same time.
package check
