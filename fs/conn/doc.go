// Package conn is the connection to the kernel: mounting, INIT and its policy, the decoding of
// requests, the readers that take them, counters, and the latency of idle CPUs. It serves anything
// that implements [Handler].
//
// Its locks are leaves: none is held while the file system is called.
//
// The package does not know nodes, layers or what a name means.
package conn
