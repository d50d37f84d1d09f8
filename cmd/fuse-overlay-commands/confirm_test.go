package main

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{
		"y\n": true, "YES\n": true, " yes \n": true, "y": true, "n\n": false, "\n": false, "": false, "yellow\n": false,
	} {
		var out strings.Builder
		got, err := confirm(&out, bufio.NewReader(strings.NewReader(answer)), "drop it")
		if got != want || err != nil || out.String() != "drop it? [y/N] " {
			t.Errorf("%q: %v, %v after %q", answer, got, err, out.String())
		}
	}
	if got, err := confirm(io.Discard, bufio.NewReader(failingReader{}), "drop it"); got || err == nil {
		t.Errorf("an input that fails: %v, %v", got, err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
