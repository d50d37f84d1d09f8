package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each page of a command has the default of each flag, and the version that the command is in.
func TestPagesHaveDefaults(t *testing.T) {
	dir := t.TempDir()
	if err := writePages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(dir + "/*.1")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	flags := 0
	for _, path := range pages {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		page := string(text)
		for _, m := range regexp.MustCompile(`(?m)^\.TP\n(\\fB-.*)\n(.*)$`).FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "help") {
				continue
			}
			flags++
			if !strings.Contains(m[2], "(default: ") {
				t.Errorf("%s: %s has no default: %s", filepath.Base(path), m[1], m[2])
			}
			if strings.ContainsAny(m[1], `"[]`) && !strings.Contains(m[1], "[=DURATION]") {
				t.Errorf("%s: %s", filepath.Base(path), m[1])
			}
		}
		if !strings.HasSuffix(page, "\n"+history) {
			t.Errorf("%s does not end with its history", filepath.Base(path))
		}
	}
	if flags < 20 {
		t.Errorf("only %d flags were found", flags)
	}
}

func TestDefaults(t *testing.T) {
	c := newStats()
	c.Flags().VisitAll(describeDefault)
	for name, want := range map[string]string{
		"json":   "print JSON, for programs (default: off)",
		"listen": "serve that page on a socket: unix:PATH (default: none)",
		"watch":  "print again after each interval, until the command is interrupted (default: off; without a value: 1s)",
	} {
		if got := c.Flags().Lookup(name).Usage; got != want {
			t.Errorf("--%s: %q, want %q", name, got, want)
		}
	}
}
