// Package attacks tests what users without trust must not be able to do: the owners of layers, the
// users of a mount, and other processes on the machine. Each test is an attack. The package does
// not test what xattrs of a layer mean; package rights does.
package attacks
