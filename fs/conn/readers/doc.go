// Package readers decides which threads wait for the next request of a FUSE connection, and how.
//
// Most of the time of a request is the wake-up of a sleeping thread on another CPU, twice: 15 µs
// each on virtual CPUs, against 2 µs of work. So a reader that has answered a request spins for a
// while before it blocks, and yields its CPU between two looks. As a rule one reader alone waits
// for requests: each request would wake a second one for nothing. Another reader is added before
// something that takes long, and by a watchdog if the reader does not come back.
//
// Pool.mu is the only lock. It is a leaf: no method of a worker or a device is called under it.
//
// The package does not know what a request is.
package readers
