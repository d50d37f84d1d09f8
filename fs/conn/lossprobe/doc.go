// Package lossprobe finds out whether this kernel loses appended data.
//
// Some kernels lose appended data on a FUSE mount without the writeback cache
// (docs/design/mapped-append.md). A write(2) puts its bytes into the last page of the file before
// i_size covers them, and i_size grows when the WRITE has been answered. If the page is dirty by a
// shared mapping, its writeback in between zeroes all that lies beyond i_size.
//
// The probe causes exactly that on a FUSE file system of its own, in two processes. The
// client makes the file system, maps its only file and writes. The server, which is this process,
// answers the WRITE after the page has been written back. The client is another process because its
// threads are blocked until the server answers. Blocked threads of the server's own process could
// keep a garbage collection from stopping the world, and so the server from answering. The server
// closes the connection after one second at most. That ends every call of the client on it.
//
// The package does not decide what follows from the result.
package lossprobe
