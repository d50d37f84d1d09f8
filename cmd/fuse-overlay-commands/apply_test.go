package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700, Uid: os.Geteuid(), Gid: os.Getegid()},
		{Typeflag: tar.TypeReg, Name: ".wh.gone"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad, target := filepath.Join(dir, "good.tar"), filepath.Join(dir, "bad.tar"), filepath.Join(dir, "lower")
	for path, data := range map[string][]byte{good: layer.Bytes(), bad: layer.Bytes()[:layer.Len()-1024]} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args []string
		code int
		want string // the message
	}{
		{[]string{good}, exitUsage, "fuse-overlay apply: accepts 2 arg(s), received 1; see fuse-overlay apply --help\n"},
		{[]string{filepath.Join(dir, "missing"), target}, exitFailed, "no such file or directory\n"},
		{[]string{bad, target}, exitFailed, "fuse-overlay apply: the layer is cut off: the end of the archive is missing\n"},
		{[]string{good, target}, exitOK, ""},
		{[]string{good, target}, exitFailed, "is not empty; a layer gets a directory of its own\n"},
	} {
		out, errs, code := runCommand(append([]string{"apply"}, tt.args...)...)
		if code != tt.code || out != "" || !strings.HasSuffix(errs, tt.want) || tt.want == "" && errs != "" {
			t.Errorf("%q\n got: %d %q %q\nwant: %d %q", tt.args, code, out, errs, tt.code, tt.want)
		}
	}
	entries, err := os.ReadDir(target)
	if err != nil || len(entries) != 2 {
		t.Errorf("the layer has %v (%v)", entries, err)
	}
}
