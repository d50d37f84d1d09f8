package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

type listOptions struct {
	json, users bool
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

With --users a second table has the processes that use each mount, so that it
cannot be unmounted: the number, the user, the name of the process and how it
uses the mount. It looks at each process of the machine that the caller may see
into, and prints how many others there are. The uses are:

    cwd, root  working directory, root directory
    exe, map   its program, a file in its memory
    file       an open file
    mount      the mount is also in the mount namespace of this process, and
               perhaps of others; umount does not remove it there

Paths with blanks or special characters are quoted as by git. With --json they
are plain, and bytes that are not UTF-8 are replaced.`,
		Example: `  fuse-overlay list
  fuse-overlay list --users
  fuse-overlay list --json | jq -r '.[] | select(.state == "dead") | .point'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              work(func(c *cobra.Command, _ []string) error { return o.run(c) }),
	}
	c.Flags().BoolVar(&o.users, "users", false, "also list the processes that use the mounts")
	addJSON(c, &o.json)
	return c
}

func (o *listOptions) run(c *cobra.Command) error {
	list, err := mounts.List()
	if err != nil {
		return fmt.Errorf("cannot read the mount table: %w; is /proc mounted?", err)
	}
	var users *mounts.Users // nil: not requested
	if o.users {
		if users, err = mounts.FindUsers(); err != nil {
			return fmt.Errorf("cannot look at the processes: %w; is /proc mounted?", err)
		}
	}
	out := c.OutOrStdout()
	if o.json {
		objects := []mountJSON{} // never null
		for _, m := range list {
			j := jsonOf(m)
			if users != nil {
				j.addUsers(users.Of(&m), users.Unseen)
			}
			objects = append(objects, j)
		}
		return printJSON(out, objects)
	}
	t := table{head: []string{"MOUNT POINT", "STATE", "PID", "AGE", "MODE", "LAYERS", "UPPER"}}
	for _, m := range list {
		t.rows = append(t.rows, rowOf(m))
	}
	t.print(out, wantsColour(out))
	if users != nil {
		printUsers(out, list, users)
	}
	return nil
}

// printUsers prints the table of the processes that use mounts.
func printUsers(out io.Writer, list []mounts.Mount, users *mounts.Users) {
	t := table{head: []string{"MOUNT POINT", "PID", "USER", "NAME", "USES"}}
	for _, m := range list {
		for _, u := range users.Of(&m) {
			t.rows = append(t.rows, []cell{{text: quote.Word(m.Point)}, {text: strconv.Itoa(u.PID)},
				{text: strconv.FormatUint(uint64(u.UID), 10)}, {text: quote.Word(u.Name)}, {text: joinUses(u.Uses)}})
		}
	}
	fmt.Fprintln(out)
	if len(t.rows) == 0 {
		fmt.Fprintln(out, "No process is seen to use a mount.")
	} else {
		t.print(out, false)
	}
	if users.Unseen > 0 {
		fmt.Fprintf(out, "\nUses by other processes that the caller may not look at (%d) are not known.\n", users.Unseen)
	}
}

func joinUses(uses []host.Use) string {
	var texts []string
	for _, use := range uses {
		texts = append(texts, string(use))
	}
	return strings.Join(texts, ",")
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

	// With --users only.
	Users           *[]userJSON `json:"users,omitempty"`
	UnseenProcesses *int        `json:"unseen_processes,omitempty"`
}

// userJSON is a process that uses a mount.
type userJSON struct {
	PID  int        `json:"pid"`
	User uint32     `json:"user"`
	Name string     `json:"name"`
	Uses []host.Use `json:"uses"`
}

// addUsers adds the processes that use the mount, and how many are not known.
func (j *mountJSON) addUsers(users []mounts.User, unseen int) {
	objects := []userJSON{} // never null
	for _, u := range users {
		objects = append(objects, userJSON{u.PID, u.UID, u.Name, u.Uses})
	}
	j.Users, j.UnseenProcesses = &objects, &unseen
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
