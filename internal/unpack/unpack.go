package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apex/log"
	"github.com/opencontainers/umoci/oci/layer"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

// Options are those of Unpack.
type Options struct {
	// Squash gives all objects to the caller. The owner in the archive, if it is not root, is kept
	// in the attribute user.rootlesscontainers.
	Squash bool
	// Warn receives a line about each attribute that the file system or the kernel refuses.
	Warn func(text string)
}

// unpacker is one layer that is being unpacked.
type unpacker struct {
	Options
	stage     *stage
	extractor *layer.TarExtractor
	// devices: this process may make device nodes.
	devices bool
	// hidden are the names that the layer hides, by directory.
	hidden map[string]*marks
}

// Unpack unpacks the layer that r holds as the directory target, which does not exist or is empty.
// The directory is complete and durable when Unpack returns. After an error, or if ctx ends,
// nothing is left.
//
// Unpack must not run twice at the same time: the log of umoci is global.
func Unpack(ctx context.Context, r io.Reader, target string, o Options) (err error) {
	log.SetLevel(log.WarnLevel)
	log.SetHandler(log.HandlerFunc(func(e *log.Entry) error { o.Warn(e.Message); return nil }))
	s, err := newStage(target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	u := &unpacker{
		Options: o, stage: s, devices: host.IsHostRoot() && !o.Squash, hidden: map[string]*marks{},
		extractor: layer.NewTarExtractor(&layer.UnpackOptions{
			OnDiskFormat: layer.DirRootfs{MapOptions: layer.MapOptions{Rootless: o.Squash}},
		}),
	}
	if err := u.unpack(interruptible(ctx, r)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return s.publish()
}

func (u *unpacker) unpack(r io.Reader) error {
	plain, err := decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	archive := &whole{r: plain}
	if err := u.entries(tar.NewReader(archive)); err != nil {
		return err
	}
	if archive.ended {
		return errCut
	}
	// The checksum of a compressed stream is at its end, behind that of the archive.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return fmt.Errorf("cannot read the layer to its end: %w", err)
	}
	return u.hide()
}

func (u *unpacker) entries(archive *tar.Reader) error {
	for {
		h, err := archive.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, tar.ErrHeader):
			return fmt.Errorf("not a layer: it must be a tar archive, plain or compressed by gzip or zstd: %w", err)
		case err != nil:
			return fmt.Errorf("cannot read the layer: %w", err)
		}
		name := h.Name
		if err := u.entry(h, archive); err != nil {
			return fmt.Errorf("entry %s of the layer: %w", quote.Word(name), explain(err, h))
		}
	}
}

// errCut is the error of an archive without its two blocks of zeroes. Package archive/tar reads it
// as a complete one, but the program that was to write it may have failed.
var errCut = errors.New("the layer is cut off: the end of the archive is missing")

// whole notes whether its reader has met the end of r.
type whole struct {
	r     io.Reader
	ended bool
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 && err == io.EOF {
		return n, nil // the next call returns it
	}
	w.ended = w.ended || err == io.EOF
	return n, err
}

// interruptible returns a reader of what r holds. It fails when ctx ends, also while it waits for
// r.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}
