// Package journal is what of a mount outlives the process that serves it: which node ids the kernel
// knows, where their objects lie, which descriptors lead to objects without a name, and which
// requests are being served. It lies in memory that the next process inherits, and has a version.
//
// A process can be killed between any two writes. So each record is written whole before one store
// of 4 or 8 bytes makes it count, and a record that counts is never changed in place. What is not
// stored then is found in the layers: they decide what is true.
//
// A Journal has one lock, which is a leaf. The package makes no system call and does not know what
// a node or a request is.
package journal
