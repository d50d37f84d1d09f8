package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Magic numbers at the beginning of a compressed stream (RFC 1952, RFC 8878).
var (
	magicGzip = []byte{0x1f, 0x8b}
	magicZstd = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// decompress returns the archive in a stream. The beginning of the stream decides how it is
// compressed: the media type of a layer is not known here, and its name is chosen by the user.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReader(r)
	magic, err := buffered.Peek(len(magicZstd))
	switch {
	case len(magic) == 0 && errors.Is(err, io.EOF):
		return nil, errors.New("the layer is empty: not even the end of an archive is there")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("cannot read the layer: %w", err)
	case bytes.HasPrefix(magic, magicGzip):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("cannot decompress the layer: %w", err)
		}
		return plain, nil
	case bytes.Equal(magic, magicZstd):
		// One goroutine: the extraction takes longer than the decompression.
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("cannot decompress the layer: %w", err)
		}
		return plain.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}
