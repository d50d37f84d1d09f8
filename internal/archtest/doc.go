// Package archtest checks the rules of ARCHITECTURE.md: which room may import which, which may make
// system calls, the list of locks, the names of xattrs, the size of files and functions. It prints
// the reason of each rule that is broken. It has no code besides its tests.
package archtest
