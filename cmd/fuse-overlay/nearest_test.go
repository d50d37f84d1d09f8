package main

import (
	"strings"
	"testing"
)

func TestTypingErrors(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"abc", "abc", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abd", 1},
		{"abc", "ab", 1},
		{"abc", "xabc", 1},
		{"abc", "acb", 1},
		{"ab", "ba", 1},
		{"lowerdir", "loewrdir", 1},
		{"kitten", "sitting", 3},
	} {
		if got := typingErrors(tt.a, tt.b); got != tt.want {
			t.Errorf("%s, %s: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestNearestOption(t *testing.T) {
	for typed, want := range map[string]string{
		"lowerdirs": "lowerdir", "upper_dir": "upperdir", "fsyn": "fsync",
		"upper":  "upperdir",
		"no_acl": "noacl", "allow_others": "allow_other", "redirectdir": "redirect_dir", "uidmaping": "uidmapping",
	} {
		if got := nearest(typed, optionNames()); got != want {
			t.Errorf("%s: got %s, want %s", typed, got, want)
		}
	}
}

func TestNothingIsNear(t *testing.T) {
	for _, typed := range []string{"", "a", "b", "x", "oi", "up", "base", "layer2", "frobnicate", "/srv/base", strings.Repeat("x", 100000)} {
		if got := nearest(typed, optionNames()); got != "" {
			t.Errorf("%.100s: got %s", typed, got)
		}
	}
}
