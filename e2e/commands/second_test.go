package commands

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The program of the commands is found beside the file of fuse-overlay or in libexec, through
// symbolic links, and never by PATH.
func TestSecondProgram(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		bin, libexec, other := e.Dir+"/i/bin", e.Dir+"/i/libexec/fuse-overlay", e.Dir+"/other"
		harness.Mkdir(t, e.Dir+"/i", bin, e.Dir+"/i/libexec", libexec, other)
		alone := bin + "/fuse-overlay"
		harness.Check(t, harness.CopyFile(harness.Program, alone))
		harness.Check(t, os.WriteFile(other+"/fuse-overlay-commands", []byte("#!/bin/sh\necho from PATH\n"), 0o755))
		harness.Check(t, os.Symlink(alone, other+"/fuse-overlay"))
		t.Setenv("PATH", other+":"+os.Getenv("PATH"))

		missing := "the program fuse-overlay-commands of this command is missing; install it as " + bin + "/fuse-overlay-commands or " +
			libexec + "/fuse-overlay-commands"
		for _, path := range []string{alone, other + "/fuse-overlay"} {
			r := program(t, path, "list")
			r.want(t, 1, "fuse-overlay list: "+missing)
			if r.out != "" {
				t.Errorf("%s prints %q", path, r.out)
			}
		}
		o := e.Overlay(t, "file f \"x\"")
		o.Program = alone // which mounts without the other one
		if out, err := harness.Run(alone, "--version"); err != nil || !strings.HasPrefix(out, "fuse-overlay version") {
			t.Errorf("%v: %s", err, out)
		}
		for _, dir := range []string{libexec, bin} {
			second := dir + "/fuse-overlay-commands"
			harness.Check(t, harness.CopyFile(harness.Program+"-commands", second))
			for _, path := range []string{alone, other + "/fuse-overlay"} {
				r := program(t, path, "version")
				r.want(t, 0, "")
				if !strings.HasPrefix(r.out, "fuse-overlay version ") {
					t.Errorf("%s with %s prints %q", path, second, r.out)
				}
			}
			harness.Check(t, os.Chmod(second, 0))
			program(t, alone, "version").want(t, 1, "cannot run "+second+": permission denied")
			harness.Check(t, os.Remove(second))
		}
	})
}

// A name of a command is a mount point for callers of fuse-overlayfs and for mount(8), and with a
// path before it. For fuse-overlay it is the command.
func TestMountPointsWithNamesOfCommands(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		o.Point = e.Dir + "/list"
		harness.Mkdir(t, o.Point, e.Dir+"/mount")
		compat := e.Dir + "/fuse-overlayfs"
		harness.Check(t, os.Symlink(harness.Program, compat))
		for _, argv := range [][]string{
			{compat, "list", "-o", o.MountOptions()},
			{harness.Program, "./list", "-o", o.MountOptions()},
			{harness.Program, "-o", o.MountOptions(), "list"},
			{harness.Program, "mount", "list", "-o", o.MountOptions()},
			{harness.Program, "mount", "version", "list", "-o", o.MountOptions()},
		} {
			if out, err := harness.RunIn(e.Dir, nil, harness.CommandLimit, argv[0], argv[1:]...); err != nil || out != "" {
				t.Errorf("%q: %v: %s", argv, err, out)
				continue
			}
			m := theOne(t, o.Point)
			if m.PID == nil || m.Upper != o.Upper {
				t.Errorf("%q: %+v", argv, m)
			}
			command(t, "umount", o.Point).want(t, 0, "")
		}
		cmd := exec.Command(harness.Program, "list", "-o", o.MountOptions())
		cmd.Dir = e.Dir
		out, err := cmd.CombinedOutput()
		if harness.ExitCode(err) != 2 || o.IsMounted() || !strings.Contains(string(out), "fuse-overlay list --help") {
			t.Errorf("the command list with options of a mount: %v, mounted %v: %s", err, o.IsMounted(), out)
		}
	})
}

// The scripts of the shells are valid, and complete commands and mount points by the program.
func TestCompletion(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		for _, shell := range []string{"bash", "zsh", "fish"} {
			r := command(t, "completion", shell)
			r.want(t, 0, "")
			path := filepath.Join(e.Dir, shell)
			harness.Write(t, path, r.out)
			if _, err := exec.LookPath(shell); err == nil {
				program(t, shell, "-n", path).want(t, 0, "")
			} else if shell == "bash" {
				t.Error(err)
			}
		}
		// As bash-completion calls the script: words of the line, and the number of the last one.
		complete := func(words ...string) string {
			script := `_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
				__ltrim_colon_completions() { :; }
				compopt() { :; }
				source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
				COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
				__start_fuse-overlay; printf '%s\n' "${COMPREPLY[@]}"`
			argv := append([]string{"bash", "-c", script, "bash", e.Dir + "/bash", harness.Program}, words...)
			r := program(t, argv...)
			r.want(t, 0, "")
			return r.out
		}
		if got := complete("um"); strings.TrimSpace(got) != "umount" {
			t.Errorf("um: %q", got)
		}
		if got := complete("umount", e.Dir+"/"); !strings.Contains(got, o.Point+"\n") {
			t.Errorf("umount: %q", got)
		}
	})
}

// The pages of the manual are written out of the help, and mandoc finds nothing in them, nor in the
// page that is written by hand.
func TestManualPages(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		if _, err := exec.LookPath("mandoc"); err != nil { // not in the root of make vm
			t.Fatalf("package mandoc: %v", err)
		}
		t.Setenv("SOURCE_DATE_EPOCH", "86400")
		program(t, harness.Program+"-commands", "man", e.Dir).want(t, 0, "")
		pages, err := filepath.Glob(e.Dir + "/*.1")
		harness.Check(t, err)
		if len(pages) < 5 {
			t.Errorf("the pages are %q", pages)
		}
		for _, page := range append(pages, "../../docs/fuse-overlay.1") {
			if r := program(t, "mandoc", "-T", "lint", "-W", "warning", page); r.code != 0 || r.out+r.errs != "" {
				t.Errorf("%d: %s%s", r.code, r.out, r.errs)
			}
		}
		text := program(t, "mandoc", "-T", "ascii", e.Dir+"/fuse-overlay-umount.1").out
		for _, part := range []string{"-\b--\b-t\bti\bim\bme\beo\bou\but\bt=DURATION", "(default: 30s)", "1970-01-02", "E\bEX\bXI\bIT\bT S\bST\bTA\bAT\bTU\bUS\bS"} {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not in\n%s", part, text)
			}
		}
	})
}
