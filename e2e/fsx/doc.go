// Package fsx checks what a file system does with the data of files. It makes random operations on
// a few files of a folder: reads, writes, appends, shared mappings, truncations, fallocate in all
// modes, copy_file_range, O_DIRECT, syncs, opens and closes. Three processes make them, the caller
// and two helpers, each with several descriptors and mappings of each file. Some rounds have one
// rare event: a helper is killed, the file system is mounted anew, or the machine drops its caches.
//
// A model in memory holds what each file must contain. Every byte and every size that is read is
// compared with it. At the end of a round, and before a new mount, the files of the layer below are
// compared too (Config.Upper). A call that must fail has to return the right errno and to leave the
// file as it is.
//
// Operations follow from a seed, so a run can be repeated. Most are made one after the other. Those
// that are made at the same time touch different bytes, so the model is exact. Beside them
// goroutines of all processes disturb: they open, read, sync and close the same files, and change
// nothing. Their timing is not repeatable. A fault that needs them may take several runs to show
// again.
//
// A run is a sequence of rounds. A round begins with new files and ends with their removal, so one
// round can be run alone.
//
// The package does not mount anything itself, does not know overlays beyond the two folders of
// Config, and checks nothing but data and sizes.
package fsx
