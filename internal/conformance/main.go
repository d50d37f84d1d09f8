package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// envInside marks the process that has a mount namespace of its own.
const envInside = "FUSE_OVERLAY_CONFORMANCE_INSIDE"

// options are the flags of the command.
type options struct {
	program string
	folder  string
	out     string
	dir     string
	suites  string
	modes   string
	cases   string
	report  bool
}

func main() {
	err := start()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode()) // the process in the namespace has printed the error
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func start() error {
	if description := os.Getenv(envSession); description != "" {
		return inSession(description)
	}
	o := options{}
	flag.StringVar(&o.program, "program", "bin/fuse-overlay", "the program to test")
	flag.StringVar(&o.folder, "suites", "", "the folder of the suites")
	flag.StringVar(&o.out, "out", "bin/conformance", "the folder of results and logs")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "where the file systems of the layers lie, as images")
	flag.StringVar(&o.suites, "suite", "", "run these suites only, separated by commas")
	flag.StringVar(&o.modes, "mode", "", "run these modes only, separated by commas")
	flag.StringVar(&o.cases, "case", "", "run these parts of a suite only: a pattern, with *")
	flag.BoolVar(&o.report, "report", false, "run nothing, and print the tables of the kept results")
	flag.Parse()
	list, err := parseExpected(expectedText)
	if err != nil {
		return err
	}
	if o.report {
		return o.print(list)
	}
	if os.Geteuid() != 0 {
		return errors.New("the suites need root: they mount file systems")
	}
	if os.Getenv(envInside) == "" {
		return enterNamespace()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return o.run(ctx, list)
}

// enterNamespace runs the command again in a mount namespace of its own.
func enterNamespace() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	signal.Ignore(syscall.SIGINT) // of the terminal: the other process ends first
	return cmd.Run()
}

// runner is the name of the copy of this command, beside that of the program.
const runner = "conformance"

// run runs the chosen suites, and prints the tables. Its error lists what expected.txt did not
// expect.
func (o *options) run(ctx context.Context, list []expectation) (err error) {
	if err := errors.Join(makePrivate(), dropInherited(), os.MkdirAll(o.out, 0o755)); err != nil {
		return err
	}
	jobs, err := o.jobs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "fuse-overlay-conformance-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "fuse-overlay")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// All users can reach the copies.
	for _, copied := range [][2]string{{o.program, program}, {self, filepath.Join(dir, runner)}} {
		if out, err := exec.Command("install", "-m", "755", copied[0], copied[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("copying %s: %w\n%s", copied[0], err, out)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	var wrong []string
	for _, j := range jobs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fmt.Printf("%s %-20s %-15s", time.Now().Format(time.TimeOnly), j.suite.name, j.mode.name)
		r, err := j.run(ctx, o, dir, program)
		if err != nil {
			fmt.Println(" error")
			wrong = append(wrong, err.Error())
			continue
		}
		fmt.Printf(" %d passed, %d failed, %d not applicable, %v\n", r.count(passed), r.count(failed),
			r.count(notApplicable), r.Took.Round(time.Second))
		if !j.mode.kernel {
			records, err := readRecords(o.out)
			if err != nil {
				return err
			}
			wrong = append(wrong, surprises(r, find(records, j.suite.name, j.mode.beside().name), list)...)
		}
	}
	if err := o.print(list); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as expected:\n%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// print prints the tables of all results in the folder.
func (o *options) print(list []expectation) error {
	records, err := readRecords(o.out)
	if err != nil {
		return err
	}
	report(os.Stdout, records, list)
	return nil
}
