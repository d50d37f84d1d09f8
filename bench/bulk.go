package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// bulkWorkloads are about one large file.
func bulkWorkloads(s sizes) []workload {
	mib := s.bulk >> 20
	random := fmt.Sprintf("4 KiB blocks of %d MiB in random order, by fio", s.random>>20)
	all := []workload{
		{name: "write", about: fmt.Sprintf("%d MiB written and synced", mib), layout: (*layouts).empty, writes: true,
			do: func(_ context.Context, t *task) error { return writeFile(filepath.Join(t.root, bigName), s.bulk) }},
		{name: "stream", about: fmt.Sprintf("%d MiB written in pieces of 64 KiB, not synced, as downloads are", mib/streamPart),
			layout: (*layouts).empty, writes: true,
			do: func(_ context.Context, t *task) error {
				return stream(filepath.Join(t.root, bigName), s.bulk/streamPart)
			}},
		{name: "cold read", about: fmt.Sprintf("%d MiB read, on a fresh mount, the layer's pages dropped (POSIX_FADV_DONTNEED)", mib),
			layout: (*layouts).big, prepare: evict, do: readBig},
		{name: "warm read", about: fmt.Sprintf("%d MiB read again", mib), layout: (*layouts).big,
			prepare: twice(readBig), do: readBig, repeats: s.repeats},
		{name: "random read", about: random + ", on a fresh mount, the layer's pages cached", layout: (*layouts).big,
			prepare: cacheLower, needs: []string{"fio"}, gauge: fio("random read", "--rw=randread", "--filename="+bigName, bytesOf(s.random))},
		{name: "random write", about: random, layout: (*layouts).empty, writes: true, needs: []string{"fio"},
			prepare: writeRandom(s.random), gauge: fio("random write", "--rw=randwrite", "--filename="+bigName, bytesOf(s.random))},
		{name: "random write (fsync)", about: fmt.Sprintf("%d of them, an fsync after each", s.synced), layout: (*layouts).empty, writes: true,
			needs: []string{"fio"}, prepare: writeRandom(s.random),
			gauge: fio("random write (fsync)", "--rw=randwrite", "--fsync=1", "--filename="+bigName, bytesOf(s.random),
				fmt.Sprintf("--number_ios=%d", s.synced))},
	}
	for i := range all {
		all[i].group = bulk
	}
	return all
}

func bytesOf(n int64) string { return fmt.Sprintf("--size=%d", n) }

func writeRandom(size int64) func(context.Context, *task) error {
	return func(_ context.Context, t *task) error { return writeFile(filepath.Join(t.root, bigName), size) }
}

// readBig reads 128 KiB at a time, as cat does.
func readBig(_ context.Context, t *task) error { return readFile(filepath.Join(t.root, bigName)) }

// readFile hides the types from package io in a struct, which would use copy_file_range(2)
// otherwise.
func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 128<<10))
	return err
}

// evict drops the pages of the large lower file, and of its copy, from the page cache.
func evict(ctx context.Context, t *task) error {
	for _, root := range t.session.layout.roots(0) {
		// With count=0, dd advises the kernel about the whole file.
		if err := run(ctx, root, "dd", "if="+bigName, "iflag=nocache", "count=0", "status=none"); err != nil {
			return err
		}
	}
	return nil
}

// cacheLower reads the large lower file, and its copy.
func cacheLower(_ context.Context, t *task) error {
	var errs []error
	for _, root := range t.session.layout.roots(0) {
		errs = append(errs, readFile(filepath.Join(root, bigName)))
	}
	return errors.Join(errs...)
}

// fio runs fio and returns how long its one job took, without the start and the end of fio.
func fio(name string, args ...string) func(context.Context, *task) ([]reading, error) {
	// Without this fio would drop the pages, on an overlay those of the layer too.
	args = append([]string{"--name=bench", "--bs=4k", "--ioengine=psync", "--invalidate=0", "--randrepeat=1",
		"--output-format=json"}, args...)
	return func(ctx context.Context, t *task) ([]reading, error) {
		out, err := output(ctx, t.root, "fio", args...)
		if err != nil {
			return nil, err
		}
		took, err := fioTime([]byte(out))
		return []reading{{name, nanoseconds, float64(took)}}, err
	}
}

// fioTime adds up how long the reads, writes and syncs of the one job took, in fio's JSON. The run
// time there is in milliseconds only.
func fioTime(text []byte) (time.Duration, error) {
	type calls struct {
		Count   float64                `json:"total_ios"`
		Latency struct{ Mean float64 } `json:"lat_ns"`
	}
	var report struct {
		Jobs []struct{ Read, Write, Sync calls }
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return 0, fmt.Errorf("fio: %w", err)
	}
	var sum float64
	for _, job := range report.Jobs {
		for _, c := range []calls{job.Read, job.Write, job.Sync} {
			sum += c.Count * c.Latency.Mean
		}
	}
	if sum == 0 {
		return 0, errors.New("fio has done nothing")
	}
	return time.Duration(sum), nil
}
