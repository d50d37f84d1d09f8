// Package posix tests the contract of each system call that takes a path: its error for each kind
// of object and caller, the times that it changes, and the state that it leaves. The tables follow
// POSIX and the manual pages of Linux. A row runs on objects of a lower and on objects of the
// upper. The package does not test what an overlay adds to that contract.
package posix
