package disklog

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// blockSize is the unit that a device writes as a whole, in bytes.
const blockSize = 4096

// blocks are the blocks of an image by their numbers. A block that is missing is zero. A block is
// never changed, only replaced.
type blocks map[int64][]byte

// Player replays a log on the image that the device has had at its beginning.
type Player struct {
	log     []Entry
	size    int64  // of the image
	medium  blocks // what is there for sure after the entries before flushed
	flushed int
}

// NewPlayer reads the image.
func NewPlayer(image string, log []Entry) (*Player, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := &Player{log: log, size: st.Size(), medium: blocks{}}
	buf := make([]byte, blockSize)
	for at := int64(0); at < p.size; at += blockSize {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO { // a hole to the end
			break
		}
		if err != nil {
			return nil, err
		}
		at = data / blockSize * blockSize
		clear(buf)
		if _, err := f.ReadAt(buf, at); err != nil && err != io.EOF {
			return nil, err
		}
		if !isZero(buf) {
			p.medium[at/blockSize] = slices.Clone(buf)
		}
	}
	return p, nil
}

// Fork returns another player, which has played as much of the log as p.
func (p *Player) Fork() *Player {
	other := *p
	other.medium = maps.Clone(p.medium)
	return &other
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// WriteImage makes a new file with the image after a cut. Each call must have a cut that is not
// before that of the last one.
func (p *Player) WriteImage(c Cut, path string) error {
	last := c.Entries
	for last > p.flushed && p.log[last-1].Kind != Flush {
		last--
	}
	for ; p.flushed < last; p.flushed++ {
		p.medium.apply(&p.log[p.flushed], func() bool { return true })
	}
	if c.Entries < p.flushed {
		return fmt.Errorf("a cut after %d entries follows one after %d", c.Entries, p.flushed)
	}
	found := maps.Clone(p.medium)
	isThere := c.chooser()
	for i := p.flushed; i < c.Entries; i++ {
		found.apply(&p.log[i], func() bool { return isThere(i) })
	}
	return found.writeTo(path, p.size)
}

// apply makes the change of an entry, for those of its blocks that isThere selects.
func (b blocks) apply(e *Entry, isThere func() bool) {
	if e.Kind != Write && e.Kind != Zero {
		return
	}
	for done := int64(0); done < e.Size; {
		number, at := (e.Offset+done)/blockSize, (e.Offset+done)%blockSize
		n := min(e.Size-done, blockSize-at)
		if isThere() {
			block := make([]byte, blockSize)
			copy(block, b[number])
			if e.Kind == Write {
				copy(block[at:], e.Data[done:done+n])
			} else {
				clear(block[at : at+n])
			}
			b[number] = block
		}
		done += n
	}
}

func (b blocks) writeTo(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	for number, block := range b {
		if err != nil {
			break
		}
		if !isZero(block) {
			_, err = f.WriteAt(block, number*blockSize)
		}
	}
	return errors.Join(err, f.Close())
}
