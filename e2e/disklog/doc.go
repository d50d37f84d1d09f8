// Package disklog answers: what did a block device get, and what is on it after a power cut?
//
// [Serve] shows an image as the file Disk of a FUSE file system, and logs each write, discard and
// flush that the file gets. A loop device on that file turns the requests of a file system into
// these: a flush (also that of a FUA write) into fsync, a discard into fallocate. No page cache
// lies between the loop device and the log. A write to the file Marks puts a text into the log. So
// it works on each kernel with FUSE and loop devices, without dm-log-writes, ublk and nbd.
//
// [Choose] chooses the moments at which the power goes, and [Player] writes the image that the
// device has after each of them: what was written before the last flush, and of later writes any
// part, because the cache of a device writes back in any order.
//
// A flush covers the writes that have arrived before it. A device might leave out those that it has
// not yet replied to.
package disklog
