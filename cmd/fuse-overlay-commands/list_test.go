package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
)

func TestRowOfMount(t *testing.T) {
	daemon := mounts.Daemon{
		PID: 12, Age: 90 * time.Minute, Known: true,
		Layers: mountargs.Layers{Lowers: []string{"/a", "/b"}, DataOnly: []string{"/d"}, Upper: "/u u"},
	}
	for _, tt := range []struct {
		m    mounts.Mount
		want string
	}{
		{mounts.Mount{Point: "/m", State: mounts.Serving, Daemon: daemon}, `/m|serving|12|1h|rw|4|"/u u"`},
		{mounts.Mount{Point: "/m", State: mounts.Serving, Daemon: mounts.Daemon{PID: 12}, ReadOnly: true}, "/m|serving|12|0s|ro|-|-"},
		{mounts.Mount{Point: "/m\n", State: mounts.Dead}, `"/m\n"|dead|-|-|rw|-|-`},
		{mounts.Mount{Point: "/m", State: mounts.Serving, Hidden: true, Daemon: daemon}, `/m|hidden|12|1h|rw|4|"/u u"`},
		{mounts.Mount{Point: "/m"}, "/m|-|-|-|rw|-|-"},
	} {
		var texts []string
		for _, c := range rowOf(tt.m) {
			texts = append(texts, c.text)
		}
		if got := strings.Join(texts, "|"); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.m, got, tt.want)
		}
	}
}

// What is not known is null, and paths are plain.
func TestJSONOfMount(t *testing.T) {
	for _, tt := range []struct {
		m    mounts.Mount
		want string
	}{
		{mounts.Mount{Point: "/<m>\n", Type: "fuse.fuse-overlay", ReadOnly: true, User: 5},
			`{"point":"/<m>\n","type":"fuse.fuse-overlay","state":null,"hidden":false,"mode":"ro","user":5,"pid":null,"age_seconds":null}`},
		{mounts.Mount{Point: "/m", State: mounts.Serving, Hidden: true, Daemon: mounts.Daemon{
			PID: 7, Age: 1500 * time.Millisecond, Layers: mountargs.Layers{Lowers: []string{"l"}, Upper: "u", Work: "w"}}},
			`{"point":"/m","type":"","state":"serving","hidden":true,"mode":"rw","user":0,"pid":7,"age_seconds":1.5,` +
				`"lowers":["l"],"upper":"u","work":"w"}`},
	} {
		var out, brief bytes.Buffer
		if err := printJSON(&out, jsonOf(tt.m)); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&brief, out.Bytes()); err != nil || brief.String() != tt.want {
			t.Errorf("got %s (%v), want %s", &brief, err, tt.want)
		}
	}
}

func TestShortAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m", 59 * time.Minute: "59m", 23 * time.Hour: "23h",
		49 * time.Hour: "2d",
	} {
		if got := shortAge(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// Columns are aligned, with and without colours, and no line ends with blanks.
func TestTable(t *testing.T) {
	table := table{head: []string{"A", "BB", "C"}, rows: [][]cell{
		{{text: "long"}, {"x", red}, {text: "1"}}, {{text: "s"}, {"yyy", plain}, {text: ""}},
	}}
	var out bytes.Buffer
	table.print(&out, false)
	if want := "A     BB   C\nlong  x    1\ns     yyy\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	out.Reset()
	table.print(&out, true)
	if want := "A     BB   C\nlong  \x1b[31mx\x1b[0m    1\ns     yyy\n"; out.String() != want {
		t.Errorf("with colours: %q, want %q", &out, want)
	}
	if wantsColour(&output{w: &out}) || wantsColour(&out) {
		t.Error("colours for what is no terminal")
	}
}
