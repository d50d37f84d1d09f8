package disklog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Kind is the kind of an Entry.
type Kind uint8

// The kinds of entries.
const (
	Write Kind = iota + 1 // Data at Offset
	Zero                  // Size bytes at Offset become zero: a discard
	Flush                 // all entries before are on the medium
	Mark                  // Data is a text of the test
)

// Entry is one request, in the order of arrival.
type Entry struct {
	Kind         Kind
	Offset, Size int64 // in bytes
	Data         []byte
}

// header precedes each entry in a file, in little endian. Size bytes follow it, but not for Zero.
type header struct {
	Kind         Kind
	Offset, Size int64
}

// writer appends entries to a file.
type writer struct {
	file *os.File
	buf  *bufio.Writer
}

func newWriter(path string) (*writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &writer{f, bufio.NewWriterSize(f, 1<<20)}, nil
}

func (w *writer) add(e Entry) error {
	if err := binary.Write(w.buf, binary.LittleEndian, header{e.Kind, e.Offset, e.Size}); err != nil {
		return err
	}
	_, err := w.buf.Write(e.Data)
	return err
}

func (w *writer) close() error { return errors.Join(w.buf.Flush(), w.file.Close()) }

// Read reads a log that is complete: [Server.Wait] has returned.
func Read(path string) (log []Entry, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := bufio.NewReaderSize(f, 1<<20)
	for {
		var h header
		if err := binary.Read(buf, binary.LittleEndian, &h); err == io.EOF {
			return log, nil
		} else if err != nil {
			return nil, fmt.Errorf("entry %d of %s: %w", len(log), path, err)
		}
		e := Entry{Kind: h.Kind, Offset: h.Offset, Size: h.Size}
		if h.Kind == Write || h.Kind == Mark {
			e.Data = make([]byte, h.Size)
			if _, err := io.ReadFull(buf, e.Data); err != nil {
				return nil, fmt.Errorf("entry %d of %s: %w", len(log), path, err)
			}
		}
		log = append(log, e)
	}
}
