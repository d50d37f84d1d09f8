// Package tryout runs a command against a throwaway copy of the system.
//
// Each writable mount of a file system gets an overlay, whose lower it is and whose upper lies in a
// temporary directory. The command runs in a mount namespace in which these overlays are in the
// place of the mounts, and in a pid namespace that ends with it. A plain user needs a user
// namespace for these, in which the user keeps its id.
//
// The overlays are mounts of the program itself. It mounts them outside of the user namespace, by
// fusermount3 for a plain user: only so the owners of objects are those of the machine. As a plain
// user cannot give a copy to its owner, the uppers of a plain user keep owners in an attribute
// (xattr_permissions=2).
//
// A second process waits for the end of the first one. If that is killed, it unmounts and removes
// what is left.
package tryout
