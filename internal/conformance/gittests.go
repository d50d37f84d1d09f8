package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// gitTests are the groups of git's tests that work on repositories and files: basics, the index,
// checkout, branches and notes, and commands of the working tree.
var gitTests = []string{"t0*.sh", "t1*.sh", "t2*.sh", "t3*.sh", "t7*.sh"}

// runGit runs git's tests by prove. The scripts and the repositories that they make lie in the
// mount. A case is a script and the number of a test in it: t0001-init:7.
func runGit(s *session) ([]result, error) {
	o, err := s.mountedOver("overlay", s.Source)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.point, "t")
	var files []string
	byName := map[string]string{} // the name of a script in JUnit's XML, and the name here
	for _, pattern := range gitTests {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			name := strings.TrimSuffix(filepath.Base(path), ".sh")
			if s.chosen(name) {
				files = append(files, path)
				byName[junitName(path)] = name
			}
		}
	}
	slices.Sort(files)
	env := []string{"TEST_OUTPUT_DIRECTORY=" + o.Dir}
	results, err := s.prove(dir, env, files, func(file, test string) string {
		number, _, _ := strings.Cut(test, " ")
		return byName[file] + ":" + number
	})
	if err != nil {
		return nil, err
	}
	return results, o.unmount()
}
