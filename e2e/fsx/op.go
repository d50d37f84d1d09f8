package fsx

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is the kind of an operation.
type kind uint8

const (
	opOpen      kind = iota // open into a slot; with O_CREAT it makes the file
	opClose                 // close a slot
	opTouch                 // open and close at once
	opRead                  // pread
	opWrite                 // pwrite.
	opAppend                // write by a descriptor with O_APPEND
	opMapRead               // map, read, unmap
	opMapWrite              // map, write, perhaps msync, unmap
	opMap                   // map into a slot.
	opKeptRead              // read by the mapping of a slot
	opKeptWrite             // write by the mapping of a slot, perhaps msync
	opUnmap                 // unmap a slot.
	opTruncate              // truncate by path
	opFtruncate             // truncate by descriptor
	opFallocate             // fallocate in the mode of Flags
	opCopy                  // copy_file_range.
	opFsync                 // fsync
	opFdatasync             // fdatasync
	opWriteBack             // sync_file_range, waiting for the data
	opStartBack             // sync_file_range, not waiting
	opDrop                  // posix_fadvise DONTNEED: clean pages leave the page cache
	opDropAll               // drop_caches of the machine.
	opSyncfs                // syncfs
	opChmod                 // a change of attributes, not of data
	opStat                  // the size by path.
	opRemove                // unlink
	opDisturb               // begin to disturb, if Flags is 1, or stop.
	opRestart               // a helper is killed, and another process takes its place
	opRemount               // the file system is unmounted and mounted
	kinds
)

var kindNames = [kinds]string{
	"open", "close", "open+close", "read", "write", "append", "mapread", "mapwrite", "map", "keptread", "keptwrite",
	"unmap",
	"truncate", "ftruncate", "fallocate", "copy_file_range", "fsync", "fdatasync", "writeback", "startwriteback",
	"dontneed",
	"drop_caches", "syncfs", "chmod", "stat", "unlink", "disturb", "restart",
	"remount",
}

func (k kind) String() string { return kindNames[k] }

// noSlot is the Slot of an operation that uses no descriptor of its file.
const noSlot = -1

// op is one operation. It contains all that a worker needs, so that it can be sent to another
// process.
type op struct {
	N     uint64 // its number in the round; the bytes that it writes follow from it
	Kind  kind
	File  int    // index of the file in the round, part of the names of slots
	Name  string // of the file
	Slot  int    // of the descriptor, or of the mapping, or noSlot
	Off   int64
	Len   int64
	Flags int // of open(2), fallocate(2), msync(2)

	// The source of copy_file_range. File, Slot and Off are the target.
	FromFile, FromSlot int
	FromOff            int64

	// Names are the files to disturb.
	Names []string

	Size bool // return the size afterwards
}

// result is the result of an operation.
type result struct {
	Errno unix.Errno
	N     int64  // bytes done
	Data  []byte // bytes read
	Size  int64  // by fstat or stat, if op.Size
	Fault string // a failure that has no errno, such as a SIGBUS
}

func (o *op) String() string {
	s := fmt.Sprintf("%d %s %s", o.N, o.Kind, o.Name)
	switch o.Kind {
	case opOpen, opClose, opTouch, opUnmap, opFsync, opFdatasync:
		s += fmt.Sprintf(" slot %d", o.Slot)
	case opTruncate, opFtruncate:
		s += fmt.Sprintf(" to %#x", o.Len)
	case opCopy:
		s += fmt.Sprintf(" %#x+%#x from file %d at %#x", o.Off, o.Len, o.FromFile, o.FromOff)
	case opStat, opRemove, opDropAll, opSyncfs, opChmod, opDisturb, opDrop, opRestart, opRemount:
	default:
		s += fmt.Sprintf(" %#x+%#x slot %d", o.Off, o.Len, o.Slot)
	}
	switch o.Kind {
	case opOpen, opTouch:
		s += " " + openFlags(o.Flags)
	case opFallocate:
		s += " " + nameOfMode(o.Flags)
	case opMapWrite, opKeptWrite:
		s += map[int]string{unix.MS_SYNC: " MS_SYNC", unix.MS_ASYNC: " MS_ASYNC"}[o.Flags]
	case opDisturb:
		s += map[int]string{0: " off", 1: " on"}[o.Flags]
	}
	return s
}

// counted is the name under which an operation is counted. Each mode of fallocate has its own.
func (o *op) counted() string {
	if o.Kind == opFallocate {
		return "fallocate " + nameOfMode(o.Flags)
	}
	return o.Kind.String()
}

func openFlags(flags int) string {
	words := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "?"}[flags&unix.O_ACCMODE]}
	for _, f := range []struct {
		bit  int
		name string
	}{
		{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"},
		{unix.O_DIRECT, "O_DIRECT"}, {unix.O_DSYNC, "O_DSYNC"},
	} {
		if flags&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	return strings.Join(words, "|")
}

// pattern holds the bytes that operations write. None is zero, which distinguishes lost data from
// written data.
var pattern = func() []byte {
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 2*patternSize)
	for i := range patternSize {
		b[i] = byte(1 + r.IntN(255))
		b[i+patternSize] = b[i]
	}
	return b
}()

const patternSize = 4 << 20

// bytesOf are the bytes that operation n writes. The caller must not change them.
func bytesOf(n uint64, size int64) []byte {
	at := int64(n * 7919 % patternSize)
	return pattern[at : at+size]
}
