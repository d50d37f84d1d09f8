package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/stats"
)

type statsOptions struct {
	watch      time.Duration
	json       bool
	prometheus bool
	listen     string
	socket     string // of listen
}

// watchInterval is the interval of --watch without a value, and minWatchInterval the shortest.
const (
	watchInterval    = time.Second
	minWatchInterval = 100 * time.Millisecond
)

func newStats() *cobra.Command {
	var o statsOptions
	c := &cobra.Command{
		Use:   "stats [flags] MOUNTPOINT",
		Short: "show what the daemon of a mount has done and uses",
		Long: `Shows how many requests of each kind the kernel has sent to the daemon of a
mount, how many of them are pending, how many came per second, and in which
time half, 90 %, 99 % and all of them were answered. A time includes the work
of the daemon, and not the way of a request through the kernel. Times are too
large by a quarter at most. Below that are copy-ups, inodes, caches,
descriptors and memory.

Rates and times are those since the mount, and with --watch those of each
interval. An interval follows the flag with a "=": --watch=5s.

The numbers come from the control socket of the daemon, which only the user who
has mounted it and root can use. The mount itself gets no request, so that this
works while the mount hangs.

--prometheus prints them in the text format of Prometheus, and --listen serves
that page at /metrics, over HTTP on a unix socket which only its owner can use,
until the mount has gone. Nothing listens on a network.`,
		Example: `  fuse-overlay stats merged
  fuse-overlay stats --watch merged
  fuse-overlay stats --json merged | jq '.requests[] | {kind, count, p99_seconds}'
  fuse-overlay stats --listen unix:/run/user/1000/merged.sock merged
  curl --unix-socket /run/user/1000/merged.sock http://localhost/metrics`,
		Args:              cobra.ExactArgs(1),
		PreRunE:           func(c *cobra.Command, _ []string) error { return o.check(c) },
		RunE:              work(func(c *cobra.Command, args []string) error { return o.run(c, args[0]) }),
		ValidArgsFunction: completeMountPoint,
	}
	addJSON(c, &o.json)
	f := c.Flags()
	f.DurationVarP(&o.watch, "watch", "w", 0, "print again after each interval, until the command is interrupted")
	f.Lookup("watch").NoOptDefVal = watchInterval.String()
	f.BoolVar(&o.prometheus, "prometheus", false, "print the text format of Prometheus")
	f.StringVar(&o.listen, "listen", "", "serve that page on a socket: unix:PATH")
	c.MarkFlagsMutuallyExclusive("json", "prometheus", "listen")
	c.MarkFlagsMutuallyExclusive("watch", "prometheus")
	c.MarkFlagsMutuallyExclusive("watch", "listen")
	return c
}

// completeMountPoint completes one mount point.
func completeMountPoint(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeMountPoints(c, args, word)
}

// check checks the values of flags.
func (o *statsOptions) check(c *cobra.Command) error {
	if c.Flags().Changed("watch") && o.watch < minWatchInterval {
		return fmt.Errorf("--watch is less than %v", minWatchInterval)
	}
	if c.Flags().Changed("listen") {
		path, ok := strings.CutPrefix(o.listen, "unix:")
		if !ok || path == "" {
			return fmt.Errorf("--listen is %q, and not unix:PATH", o.listen)
		}
		o.socket = path
	}
	return nil
}

func (o *statsOptions) run(c *cobra.Command, path string) error {
	m, err := mounts.EntryAt(path)
	if err != nil {
		return err
	}
	read := func() (*control.Stats, error) { return stats.Read(m) }
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer end()
	switch {
	case o.socket != "":
		if _, err := read(); err != nil { // before a scraper comes
			return err
		}
		return stats.Serve(ctx, o.socket, read)
	case o.watch > 0:
		return o.repeat(ctx, c.OutOrStdout(), m, read)
	}
	s, err := read()
	if err != nil {
		return err
	}
	if o.prometheus {
		_, err = c.OutOrStdout().Write(stats.Page(s))
		return err
	}
	return o.print(c.OutOrStdout(), m, stats.NewReport(s, nil))
}

// home moves the cursor to the upper left corner of a terminal and clears the screen (ECMA-48: CUP,
// ED).
const home = "\x1b[H\x1b[2J"

// repeat prints a report after each interval, until the end of ctx or until the mount has gone.
func (o *statsOptions) repeat(ctx context.Context, out io.Writer, m host.MountEntry, read func() (*control.Stats, error)) error {
	ticks := time.NewTicker(o.watch)
	defer ticks.Stop()
	var before *control.Stats
	for {
		s, err := read()
		if err != nil {
			return err
		}
		if !o.json && obeysEscapes(out) {
			fmt.Fprint(out, home)
		} else if !o.json && before != nil {
			fmt.Fprintln(out)
		}
		if err := o.print(out, m, stats.NewReport(s, before)); err != nil {
			return err
		}
		if output, ok := out.(*output); ok && output.err != nil { // the reader of a pipe has gone
			return nil
		}
		before = s
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// print prints a report: a table, or JSON, which is one line for each interval.
func (o *statsOptions) print(out io.Writer, m host.MountEntry, r stats.Report) error {
	switch {
	case o.json && o.watch > 0:
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	case o.json:
		return printJSON(out, r)
	}
	printReport(out, m, r)
	return nil
}

// printReport prints a report as a table. The texts of the daemon are not trusted.
func printReport(out io.Writer, m host.MountEntry, r stats.Report) {
	text := func(s string) string { return message.Printable(message.OneLine(s)) }
	layers := len(r.Mount.Lowers) + len(r.Mount.DataOnly)
	if r.Mount.Upper != "" {
		layers++
	}
	fmt.Fprintf(out, "%s: %s, %d layers, process %d, %s old, version %s\n%s\n\n", quote.Word(m.Point), text(r.Mount.Mode), layers,
		r.Mount.PID, shortAge(time.Duration(r.Uptime*float64(time.Second))), text(r.Mount.Version), text(r.Mount.IO))
	t := table{head: []string{"REQUEST", "COUNT", "PENDING", "PER SECOND", "50 %", "90 %", "99 %", "ALL"}}
	for _, q := range r.Requests {
		row := []cell{{text: text(q.Kind)}, {text: strconv.FormatUint(q.Count, 10)}, {text: strconv.FormatUint(q.Pending, 10)},
			{text: strconv.FormatFloat(q.Rate, 'f', 1, 64)}}
		for _, seconds := range []float64{q.P50, q.P90, q.P99, q.Max} {
			row = append(row, cell{text: shortTime(seconds)})
		}
		t.rows = append(t.rows, row)
	}
	t.print(out, false)
	fmt.Fprintf(out, "\ncopy-ups     %d, %s\n", r.CopyUps.Objects, size(r.CopyUps.Bytes))
	fmt.Fprintf(out, "inodes       %d known to the kernel, %d made\n", r.Inodes.Known, r.Inodes.Made)
	fmt.Fprintf(out, "handles      %d open, %d uses found one open, %d opened one\n",
		r.Caches.HandlesOpen, r.Caches.HandlesFound, r.Caches.HandlesOpened)
	fmt.Fprintf(out, "directories  %d read\n", r.Caches.DirLoads)
	fmt.Fprintf(out, "prefetch     %d reads answered from memory\n", r.Caches.PrefetchedReads)
	fmt.Fprintf(out, "daemon       %d descriptors, %d goroutines, %s resident, %s of it heap\n",
		r.Process.OpenDescriptors, r.Process.Goroutines, size(r.Process.ResidentBytes), size(r.Process.HeapBytes))
}

// shortTime writes a latency with two or three digits, in ASCII. 0 is none.
func shortTime(seconds float64) string {
	const longest = 69 // the daemon does not distinguish longer ones
	if seconds > longest {
		return ">69s"
	}
	d := time.Duration(math.Round(seconds * float64(time.Second)))
	digit := time.Nanosecond // the last one that is written
	switch {
	case d <= 0:
		return notKnown
	case d >= time.Second:
		digit = 100 * time.Millisecond
	case d >= 10*time.Millisecond:
		digit = time.Millisecond
	case d >= time.Millisecond:
		digit = 100 * time.Microsecond
	case d >= 10*time.Microsecond:
		digit = time.Microsecond
	case d >= time.Microsecond:
		digit = 100 * time.Nanosecond
	}
	return strings.Replace(d.Round(digit).String(), "µ", "u", 1)
}

// size writes a number of bytes in its largest unit.
func size(bytes uint64) string {
	value := float64(bytes)
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 && len(units) > 1 {
		value, units = value/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[0])
}
