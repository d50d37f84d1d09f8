package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/stats"
)

func TestStatsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"":                             "accepts 1 arg(s), received 0",
		"a b":                          "accepts 1 arg(s), received 2",
		"--watch=1ms a":                "--watch is less than 100ms",
		"--watch=-1s a":                "--watch is less than 100ms",
		"--watch=x a":                  "invalid duration",
		"--listen=tcp:80 a":            `--listen is "tcp:80", and not unix:PATH`,
		"--listen=unix: a":             "and not unix:PATH",
		"--json --prometheus a":        "[json prometheus]",
		"--json --listen=unix:x a":     "[json listen]",
		"--watch --prometheus a":       "[prometheus watch]",
		"--watch=2s --listen=unix:x a": "[listen watch]",
	} {
		out, errs, code := runCommand(append([]string{"stats"}, strings.Fields(args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("stats %s: exit %d, %q, %q; want %q", args, code, out, errs, want)
		}
	}
}

// sample are the numbers of a daemon whose texts are hostile.
func sample(uptime float64, reads uint64) *control.Stats {
	return &control.Stats{
		Mount:   control.Mount{PID: 7, Version: "1\x1b[2J", Mode: "read-write", IO: "cached\nx", Upper: "/u", Lowers: []string{"/a", "/b"}},
		Uptime:  uptime,
		CopyUps: control.CopyUps{Objects: 3, Bytes: 3 << 20},
		Requests: []control.Request{
			{Kind: "READ", Count: reads, Latency: []control.Bucket{{Below: 20480, Count: reads - 1}}},
			{Kind: "FORGET", Count: 2},
			{Kind: "BAD\x1b]0;\a", Count: 1},
		},
	}
}

func TestStatsTable(t *testing.T) {
	var out bytes.Buffer
	printReport(&out, host.MountEntry{Point: "/m\n"}, stats.NewReport(sample(7200, 14400), nil))
	text := out.String()
	for _, want := range []string{
		`"/m\n": read-write, 3 layers, process 7, 2h old, version 1`,
		"READ      14400  1        2.0         20us  20us  20us  20us\n",
		"FORGET    2      0        0.0         -     -     -     -\n",
		"copy-ups     3, 3.0 MiB\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("a character that is not printable at %d of %q", i, text)
	}
}

// Each interval has its own rates. Where the output is no terminal, nothing is cleared.
func TestStatsWatch(t *testing.T) {
	gone := errors.New("gone")
	for _, asJSON := range []bool{false, true} {
		o := statsOptions{watch: time.Millisecond, json: asJSON}
		var out bytes.Buffer
		reads := uint64(10)
		err := o.repeat(context.Background(), &out, host.MountEntry{Point: "/m"}, func() (*control.Stats, error) {
			if reads += 10; reads > 40 {
				return nil, gone
			}
			return sample(float64(reads), reads), nil
		})
		if !errors.Is(err, gone) || strings.Contains(out.String(), home) {
			t.Errorf("%v, %q", err, &out)
		}
		if !asJSON {
			if n := strings.Count(out.String(), "/m: "); n != 3 {
				t.Errorf("%d reports: %s", n, &out)
			}
			continue
		}
		decoder, n := json.NewDecoder(&out), 0
		for ; decoder.More(); n++ {
			var r stats.Report
			if err := decoder.Decode(&r); err != nil {
				t.Fatal(err)
			}
			if want := []float64{20, 10, 10}[n]; r.Interval != want || r.Requests[0].Rate != 1 {
				t.Errorf("interval %d: %v seconds, %v a second", n, r.Interval, r.Requests[0].Rate)
			}
		}
		if n != 3 {
			t.Errorf("%d reports", n)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := statsOptions{watch: time.Hour}
	var out bytes.Buffer
	err := o.repeat(ctx, &out, host.MountEntry{}, func() (*control.Stats, error) { cancel(); return sample(1, 1), nil })
	if err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// The end of the reader of a pipe ends the command.
func TestStatsWatchIntoAPipe(t *testing.T) {
	o := statsOptions{watch: time.Millisecond}
	out := &output{w: fullDisk{}}
	err := o.repeat(context.Background(), out, host.MountEntry{}, func() (*control.Stats, error) { return sample(1, 1), nil })
	if err != nil || out.err == nil {
		t.Errorf("%v, %v", err, out.err)
	}
}

func TestShortTimes(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "-", -1: "-", 1.024e-6: "1us", 1.28e-6: "1.3us", 24.576e-6: "25us", 983e-6: "983us", 2.1e-3: "2.1ms",
		26e-3: "26ms", 1.34: "1.3s", 68: "1m8s", math.MaxInt64 / 1e9: ">69s",
	} {
		if got := shortTime(seconds); got != want {
			t.Errorf("%v: %s, want %s", seconds, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 19: "1.5 MiB", math.MaxUint64: "16.0 EiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}
