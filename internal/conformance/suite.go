package main

import "time"

// A suite is one set of tests made by others.
type suite struct {
	// name is that of its folder and of its line in pins.txt, unless pkg is set.
	name  string
	about string
	// pkg is the Debian package that holds the suite. A packaged suite has no pin.
	pkg string
	// built is a file below the folder that exists when the suite is built, or the path of a program.
	built string
	// locate finds a suite that comes with the machine, and returns its place and version. It has no
	// pin.
	locate func() (source, version string, err error)
	// folder is the name of the folder and pin, if several suites lie in one.
	folder string
	// onlyRoot names the reason why the suite does not run in a user namespace.
	onlyRoot string
	// plain makes the suite run as a plain user, too.
	plain bool
	// limit is the time for one mode.
	limit time.Duration
	run   func(*session) ([]result, error)
}

// suites are all that the command knows, in the order of the report.
var suites = []suite{
	{
		name: "pjdfstest", about: "system calls on files, by POSIX", built: "pjdfstest",
		limit: time.Hour, run: runPjdfstest,
	},
	{
		name: "unionmount-testsuite", about: "merged trees, copy-up, whiteouts, renames", built: "run",
		limit: time.Hour, run: runUnionmount,
	},
	{
		name: "xfstests-overlay", about: "tests of overlayfs, group quick", folder: "xfstests", built: "ltp/fsx",
		onlyRoot: "xfstests mounts block devices",
		limit:    3 * time.Hour, run: runXfstestsOverlay,
	},
	{
		name: "xfstests-generic", about: "tests of all file systems, group quick", folder: "xfstests", built: "ltp/fsx",
		onlyRoot: "xfstests mounts block devices",
		limit:    6 * time.Hour, run: runXfstestsGeneric,
	},
	{
		name: "fsx", about: "random operations on the data of one file", folder: "xfstests", built: "ltp/fsx",
		limit: time.Hour, run: runFsx,
	},
	{
		name: "fsstress", about: "random operations of four processes on a tree", folder: "xfstests", built: "ltp/fsstress",
		limit: time.Hour, run: runFsstress,
	},
	{
		name: "stress-ng", about: "the stressors of file systems, with --verify", pkg: "stress-ng",
		built: "/usr/bin/stress-ng",
		limit: time.Hour, run: runStressNG,
	},
	{
		name: "cpython", about: "CPython's tests of modules that use files", locate: findPython, plain: true,
		limit: time.Hour, run: runPython,
	},
	{
		name: "go", about: "the tests of Go's packages that use files", locate: findGo, plain: true,
		limit: time.Hour, run: runGo,
	},
	{
		name: "git", about: "git's tests t0 to t3 and t7", built: "bin-wrappers/git",
		limit: 4 * time.Hour, run: runGit,
	},
}

// source is the name of the folder and of the pin.
func (s *suite) source() string {
	if s.folder != "" {
		return s.folder
	}
	return s.name
}
