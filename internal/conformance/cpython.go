package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pythonTests is where the packages libpython3.*-testsuite of Debian install the tests of CPython.
const pythonTests = "/usr/lib/python3.*/test/test_os.py"

// pythonModules are the modules of CPython's tests that use files.
var pythonModules = []string{
	"test_bufio", "test_cmd_line_script", "test_compileall", "test_configparser", "test_dbm", "test_dbm_dumb",
	"test_dbm_gnu", "test_dbm_ndbm", "test_epoll", "test_fcntl", "test_file", "test_file_eintr", "test_filecmp",
	"test_fileinput", "test_fileio", "test_fileutils", "test_fnmatch", "test_genericpath", "test_glob", "test_gzip",
	"test_import", "test_io", "test_ioctl", "test_largefile", "test_linecache", "test_mailbox", "test_mmap",
	"test_netrc", "test_os", "test_pathlib", "test_pkg", "test_pkgutil", "test_posix", "test_posixpath",
	"test_py_compile", "test_runpy", "test_shelve", "test_shutil", "test_stat", "test_subprocess", "test_tarfile",
	"test_tempfile", "test_unicode_file", "test_unicode_file_functions", "test_univnewlines", "test_zipapp",
	"test_zipfile", "test_zipimport",
}

// findPython returns the interpreter whose tests are installed, and the version of their package.
func findPython() (interpreter, version string, err error) {
	found, err := filepath.Glob(pythonTests)
	if err != nil || len(found) == 0 {
		return "", "", errors.Join(err, errors.New("cpython: install the package libpython3.*-testsuite"))
	}
	out, err := exec.Command("dpkg-query", "-S", found[0]).Output()
	if err != nil {
		return "", "", fmt.Errorf("cpython: the package of %s: %w", found[0], err)
	}
	pkg, _, _ := strings.Cut(string(out), ":")
	out, err = exec.Command("dpkg-query", "-W", "-f", "${Package} ${Version}", pkg).Output()
	if err != nil {
		return "", "", fmt.Errorf("cpython: the version of %s: %w", pkg, err)
	}
	name := filepath.Base(filepath.Dir(filepath.Dir(found[0])))
	return filepath.Join("/usr/bin", name), string(out), nil
}

// runPython runs modules of CPython's tests. Interpreter, library and tests lie in the mount, as
// objects of a lower, and so do the folders for temporary files. A case is a test by the name that
// unittest gives it, or a module that has reported none.
func runPython(s *session) ([]result, error) {
	prefix := filepath.Dir(filepath.Dir(s.Source))
	o, err := s.mountedOver("overlay", prefix)
	if err != nil {
		return nil, err
	}
	var results []result
	for _, module := range s.choose(pythonModules) {
		rs, err := o.pythonModule(module)
		if err != nil {
			return nil, err
		}
		results = append(results, rs...)
	}
	return results, o.unmount()
}

// pythonModule runs one module.
func (o *overlay) pythonModule(module string) ([]result, error) {
	report := filepath.Join(o.layers, module+".xml") // root may not read a plain user's mount
	argv := []string{
		filepath.Join(o.point, "bin", filepath.Base(o.s.Source)), "-m", "test", "--use", "all,-network,-urlfetch,-cpu,-gui,-audio",
		"--timeout", "600", "--tempdir", o.Dir, "--junit-xml", report, module,
	}
	fmt.Printf("=== %s\n", module)
	var tail lastLine
	cmd := o.s.command(o.Dir, argv...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isPythonVariable), "TMPDIR="+o.Dir)
	cmd.Stdout, cmd.Stderr = &tail, &tail
	runErr := cmd.Run()
	results, err := readPythonReport(report)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNoCase) {
		return nil, err
	}
	return withUnit(results, module, runErr, tail.text()), nil
}

// isPythonVariable reports whether a variable of the environment changes what the interpreter does.
func isPythonVariable(v string) bool { return strings.HasPrefix(v, "PYTHON") }

func readPythonReport(path string) ([]result, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return parseJUnit(in, func(_, testcase string) string {
		name := strings.TrimPrefix(testcase, "test.")
		return strings.Join(strings.Fields(name), "_")
	})
}

// withUnit adds a result for a whole module or package. It is failed if the run failed and none of
// its cases did, and not applicable if there are no cases.
func withUnit(results []result, unit string, runErr error, detail string) []result {
	for _, r := range results {
		if r.Status == failed {
			return results
		}
	}
	switch {
	case runErr != nil:
		return append(results, result{Case: unit, Status: failed, Detail: fmt.Sprintf("%v: %s", runErr, detail)})
	case len(results) == 0:
		return []result{{Case: unit, Status: notApplicable, Detail: detail}}
	}
	return results
}
