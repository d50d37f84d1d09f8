package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// runPjdfstest runs each file of pjdfstest's tests by prove, as its README describes. A case is a
// file and the number of an assertion in it: chmod/00:7.
func runPjdfstest(s *session) ([]result, error) {
	o, err := s.mounted("overlay")
	if err != nil {
		return nil, err
	}
	tests := filepath.Join(s.Source, "tests")
	var files []string
	byName := map[string]string{} // the name of a file in JUnit's XML, and the name here
	err = filepath.WalkDir(tests, func(path string, _ fs.DirEntry, err error) error {
		name, isTest := strings.CutSuffix(path, ".t")
		if name, _ = strings.CutPrefix(name, tests+"/"); err == nil && isTest && s.chosen(name) {
			files = append(files, path)
			byName[junitName(path)] = name
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	results, err := s.prove(o.Dir, nil, files, func(file, assertion string) string {
		number, _, _ := strings.Cut(assertion, " ")
		return byName[file] + ":" + number
	})
	if err != nil {
		return nil, err
	}
	return results, o.unmount()
}

// proveJobs is how many files of tests run at once. Most of their time they sleep.
const proveJobs = "4"

// prove runs files that write TAP, in a directory and with further variables of the environment.
// name is that of parseJUnit.
func (s *session) prove(dir string, env, files []string, name func(suite, testcase string) string) ([]result, error) {
	argv := append([]string{"prove", "-j", proveJobs, "--formatter", "TAP::Formatter::JUnit"}, files...)
	cmd := s.command(dir, argv...)
	// An assertion marked as TODO may pass.
	cmd.Env = append(append(os.Environ(), "ALLOW_PASSING_TODOS=1"), env...)
	var out bytes.Buffer
	cmd.Stdout = &out
	runErr := cmd.Run() // fails if an assertion fails
	results, err := parseJUnit(&out, name)
	if err != nil {
		return nil, errors.Join(runErr, err)
	}
	return results, nil
}

// junitName is the name that TAP::Formatter::JUnit gives to a file with an absolute path.
func junitName(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == ':' {
			return r
		}
		return '_'
	}, path)
}
