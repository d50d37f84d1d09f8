// Package whiteout knows how absence is written in a layer.
//
// An entry that is removed while a lower layer still has it leaves a whiteout, and a directory that no longer shows what
// lies below it is opaque. Both have several forms on disk: those of the kernel's overlayfs (character device 0/0, the
// overlay.opaque and overlay.whiteout extended attributes; Documentation/filesystems/overlayfs.rst), those of AUFS and of
// OCI image layers (names that begin with ".wh."), and one of older programs in user space (user.fuseoverlayfs.opaque).
// All of them are read in every layer; one [Format], found by trying, is written in the upper. The extended attributes
// that carry such marks are private: the mount neither shows them nor lets them be set. What else the overlay keeps in
// attributes of its own is written and read here too: redirects, origins.
//
// The package does not know how a directory is merged, when something is removed, or how a whiteout gets to its place.
package whiteout
