package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A job is one suite in one mode.
type job struct {
	suite   *suite
	mode    mode
	source  string
	version string
}

// jobs returns the chosen suites and modes. It fails if a chosen suite is missing.
func (o *options) jobs() (jobs []job, err error) {
	wantSuites, wantModes := fields(o.suites), fields(o.modes)
	for i := range suites {
		s := &suites[i]
		if !take(&wantSuites, s.name, o.suites) {
			continue
		}
		source, version, sourceErr := findSource(s, o.folder)
		err = errors.Join(err, sourceErr)
		left := slices.Clone(wantModes)
		for _, m := range modes {
			if take(&left, m.name, o.modes) && (s.onlyRoot == "" || !m.userns) && (s.plain || !m.plain) {
				jobs = append(jobs, job{s, m, source, version})
			}
		}
		if len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("there is no mode %s", strings.Join(left, ", ")))
		}
	}
	if len(wantSuites) > 0 {
		err = errors.Join(err, fmt.Errorf("there is no suite %s", strings.Join(wantSuites, ", ")))
	}
	return jobs, err
}

// fields splits a list at commas.
func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// take removes a name from the names that are still to be found. It reports whether the name is
// chosen; an empty list chooses all.
func take(names *[]string, name, list string) bool {
	i := slices.Index(*names, name)
	if i >= 0 {
		*names = slices.Delete(*names, i, i+1)
	}
	return i >= 0 || list == ""
}

// run runs a job and keeps its record.
func (j *job) run(ctx context.Context, o *options, dir, program string) (r *record, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, j.suite.limit, fmt.Errorf("not done after %v", j.suite.limit))
	defer cancel()
	log, err := os.Create(recordPath(o.out, j.suite.name, j.mode.name) + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r = &record{
		Suite: j.suite.name, Mode: j.mode.name, Version: j.version, Program: mounted(j.mode, program),
		Machine: machine(), Date: time.Now(),
	}
	images := filepath.Join(dir, "images")
	if err := os.Mkdir(images, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeImages(images)) }()
	err = withFileSystem(dir, j.mode, func(point string) (err error) {
		s := session{
			Suite: j.suite.name, Mode: j.mode.name, Source: j.source, Program: program, Dir: point, Image: images, Case: o.cases,
		}
		r.Results, err = s.start(ctx, log)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Took = time.Since(r.Date)
	return r, r.save(o.out)
}

// removeImages removes the images of a session and their loop devices. The kernel shows the path of
// an image as the session's mount namespace has it, from the root of its file system on.
func removeImages(dir string) error {
	out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").Output()
	if err != nil {
		return err
	}
	var errs []error
	tail := filepath.Join("/", filepath.Base(filepath.Dir(dir)), filepath.Base(dir)) + "/"
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 2 && strings.Contains(f[1], tail) {
			errs = append(errs, exec.Command("losetup", "--detach", f[0]).Run())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// mounted names what a mode mounts, with its version.
func mounted(m mode, program string) string {
	if m.kernel {
		return "overlayfs of Linux " + release()
	}
	out, err := exec.Command(program, "-V").Output()
	if err != nil {
		return err.Error()
	}
	return firstLine(string(out))
}

// machine describes the machine.
func machine() string {
	return fmt.Sprintf("%s, %d CPUs, Linux %s", runtime.GOARCH, runtime.NumCPU(), release())
}

func release() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err.Error()
	}
	var text []byte
	for _, c := range u.Release {
		text = append(text, byte(c))
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text)
}
