package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

type listOptions struct {
	json bool
}

func newList() *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "list the mounts of fuse-overlay",
		Long: `Lists the mounts of fuse-overlay in the mount namespace of the caller.

The columns are the mount point, the state, the process that serves the mount
and its age, whether the mount is read-write (rw) or read-only (ro), the number
of its layers, and the upper as it was given to the mount. A "-" is what the
caller may not see. Layers and upper are those of the daemon's command line,
which its user can change. The states are:

    serving  the daemon runs
    silent   no daemon is found, and the mount has not answered in two seconds
    dead     the daemon has ended; fuse-overlay umount removes the mount
    hidden   another mount is on top of this one

Paths with blanks or special characters are quoted as by git. With --json they
are plain, and bytes that are not UTF-8 are replaced.`,
		Example: `  fuse-overlay list
  fuse-overlay list --json | jq -r '.[] | select(.state == "dead") | .point'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              work(func(c *cobra.Command, _ []string) error { return o.run(c) }),
	}
	addJSON(c, &o.json)
	return c
}

func (o *listOptions) run(c *cobra.Command) error {
	list, err := mounts.List()
	if err != nil {
		return fmt.Errorf("cannot read the mount table: %w; is /proc mounted?", err)
	}
	out := c.OutOrStdout()
	if o.json {
		objects := []mountJSON{} // never null
		for _, m := range list {
			objects = append(objects, jsonOf(m))
		}
		return printJSON(out, objects)
	}
	t := table{head: []string{"MOUNT POINT", "STATE", "PID", "AGE", "MODE", "LAYERS", "UPPER"}}
	for _, m := range list {
		t.rows = append(t.rows, rowOf(m))
	}
	t.print(out, wantsColour(out))
	return nil
}

// mountJSON is a mount in the output of --json. What is not known is null or missing.
type mountJSON struct {
	Point      string        `json:"point"`
	Type       string        `json:"type"`
	State      *mounts.State `json:"state"`
	Hidden     bool          `json:"hidden"`
	Mode       string        `json:"mode"`
	User       uint32        `json:"user"`
	PID        *int          `json:"pid"`
	AgeSeconds *float64      `json:"age_seconds"`
	Lowers     []string      `json:"lowers,omitempty"`
	DataOnly   []string      `json:"data_only,omitempty"`
	Upper      string        `json:"upper,omitempty"`
	Work       string        `json:"work,omitempty"`
}

func jsonOf(m mounts.Mount) mountJSON {
	d := m.Daemon
	j := mountJSON{
		Point: m.Point, Type: m.Type, Hidden: m.Hidden, Mode: modeOf(m), User: m.User,
		Lowers: d.Layers.Lowers, DataOnly: d.Layers.DataOnly, Upper: d.Layers.Upper, Work: d.Layers.Work,
	}
	if m.State != mounts.Unknown {
		j.State = &m.State
	}
	if d.PID != 0 {
		seconds := d.Age.Seconds()
		j.PID, j.AgeSeconds = &d.PID, &seconds
	}
	return j
}

func modeOf(m mounts.Mount) string {
	if m.ReadOnly {
		return "ro"
	}
	return "rw"
}

// notKnown is what the table has for what the caller may not see, or what does not exist.
const notKnown = "-"

func rowOf(m mounts.Mount) []cell {
	state := cell{text: notKnown}
	switch {
	case m.Hidden:
		state.text = "hidden"
	case m.State == mounts.Serving:
		state = cell{string(m.State), green}
	case m.State != mounts.Unknown:
		state = cell{string(m.State), red}
	}
	pid, age, layers, upper := notKnown, notKnown, notKnown, notKnown
	d := m.Daemon
	if d.PID != 0 {
		pid, age = strconv.Itoa(d.PID), shortAge(d.Age)
	}
	if d.Known {
		count := len(d.Layers.Lowers) + len(d.Layers.DataOnly)
		if d.Layers.Upper != "" {
			count++
			upper = quote.Word(d.Layers.Upper)
		}
		layers = strconv.Itoa(count)
	}
	return []cell{
		{text: quote.Word(m.Point)}, state, {text: pid}, {text: age}, {text: modeOf(m)}, {text: layers}, {text: upper},
	}
}

// shortAge writes a duration in its largest unit.
func shortAge(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}
