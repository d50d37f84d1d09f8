package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// goPackages are the packages of Go's own library and commands whose tests use files.
var goPackages = []string{
	"archive/...", "cmd/go/internal/cache", "cmd/go/internal/fsys", "cmd/go/internal/lockedfile/...",
	"cmd/internal/robustio", "embed/...", "go/build", "internal/poll", "internal/syscall/...", "io/fs", "io/ioutil",
	"mime/multipart", "os", "os/exec", "os/signal", "os/user", "path/filepath", "syscall", "testing/fstest",
}

// findGo returns the folder of the installed Go, and its version.
func findGo() (root, version string, err error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return "", "", err
	}
	root, version, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return root, version, nil
}

// runGo compiles and runs the tests of Go's packages. The compiler, the sources with their test
// data, the cache of builds and temporary files lie in the mount. A case is a package and a test:
// os/TestChmod.
func runGo(s *session) ([]result, error) {
	o, err := s.mountedOver("overlay", s.Source)
	if err != nil {
		return nil, err
	}
	argv := []string{filepath.Join(o.point, "bin/go"), "test", "-json", "-short", "-vet=off", "-count=1"}
	cmd := s.command(filepath.Join(o.point, "src"), append(argv, s.choose(goPackages)...)...)
	cmd.Env = append(os.Environ(), "GOROOT="+o.point, "GOTOOLCHAIN=local", "GOENV=off", "GOFLAGS=", "CGO_ENABLED=0",
		"TMPDIR="+o.Dir, "GOPATH="+filepath.Join(o.Dir, "path"), "GOCACHE="+filepath.Join(o.Dir, "cache"))
	var out bytes.Buffer
	cmd.Stdout = &out
	runErr := cmd.Run() // fails if a test fails
	results, err := parseGo(&out)
	if err != nil {
		return nil, errors.Join(runErr, err)
	}
	return results, o.unmount()
}

// goEvent is a line of the output of go test -json.
type goEvent struct{ Action, Package, Test, Output string }

// parseGo reads the output of go test -json. A package gets a result of its own if it failed and
// none of its tests did, or if it has no tests.
func parseGo(in io.Reader) (results []result, err error) {
	byPackage, said := map[string][]result{}, map[string]string{}
	for dec := json.NewDecoder(in); ; {
		var e goEvent
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		name := e.Package + "/" + e.Test
		if e.Action == "output" {
			if line := strings.TrimSpace(e.Output); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
				said[name] = line
			}
			continue
		}
		status, isResult := map[string]status{"pass": passed, "fail": failed, "skip": notApplicable}[e.Action]
		switch {
		case !isResult || e.Package == "":
		case e.Test != "":
			r := result{Case: name, Status: status}
			if status != passed {
				r.Detail = said[name]
			}
			byPackage[e.Package] = append(byPackage[e.Package], r)
		default:
			var runErr error
			if status == failed {
				runErr = errors.New("the package failed")
			}
			results = append(results, withUnit(byPackage[e.Package], e.Package, runErr, said[name])...)
		}
	}
	if len(results) == 0 {
		return nil, errNoCase
	}
	return results, nil
}
