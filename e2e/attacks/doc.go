// Package attacks tests what users must not be able to do who are not trusted: the owners of
// layers, the users of a mount, and other processes on the machine. Each test is an attack. It does
// not test what xattrs of a layer mean; package rights does.
package attacks
