// Package fsx checks what a file system does with the data of files. It makes random operations on
// a few files of a folder: reads, writes, appends, shared mappings, truncations, fallocate,
// copy_file_range, O_DIRECT, syncs, opens and closes. Two processes make them, the caller and a
// helper, each with several descriptors and mappings of each file. A model in memory holds what
// each file must contain. Every byte and every size that is read is compared with it. At the end of
// a round the files of the layer below are compared too (Config.Upper).
//
// Operations follow from a seed and are made one after the other, so the model is exact and a run
// can be repeated. Beside them goroutines of both processes disturb: they open, read, sync and
// close the same files, and change nothing. Their timing is not repeatable. A fault that needs them
// may take several runs to show again.
//
// A run is a sequence of rounds. A round begins with new files and ends with their removal, so one
// round can be run alone.
//
// The package does not mount anything, does not know overlays beyond the two folders of Config, and
// checks nothing but data and sizes.
package fsx
