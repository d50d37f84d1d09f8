package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pkg is one package of the module, as `go list -json` names its parts.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string

	// sources holds the text of files by name in place of Dir, for fixtures.
	sources map[string]string
}

func (p *pkg) room() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// parse parses files of the package, with their comments.
func (p *pkg) parse(fset *token.FileSet, names ...string) (map[string]*ast.File, error) {
	files := map[string]*ast.File{}
	for _, name := range names {
		var source any
		if p.sources != nil {
			source = p.sources[name]
		}
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), source, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files[name] = file
	}
	return files, nil
}

// TestArchitecture checks the module as it stands.
func TestArchitecture(t *testing.T) {
	pkgs := goList(t, "./...")
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	functions := watchedFunctions(t)
	for _, p := range pkgs {
		for _, violation := range slices.Concat(checkImports(p), checkCalls(p, functions), checkText(p)) {
			t.Error(violation)
		}
	}
}

// root is the folder of go.mod.
var root = filepath.Join("..", "..")

// goList runs `go list -json` in the root of the module.
func goList(t *testing.T, patterns ...string) []*pkg {
	t.Helper()
	openFolders(t)
	cmd := exec.Command("go", append([]string{"list", "-e", "-json"}, patterns...)...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []*pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, &p)
	}
}

// openFolders lists every folder of the module. What a test opens is what `go test` looks at before
// it takes a result out of its cache; what go list opens it does not see.
func openFolders(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// watchedFunctions collects the exported functions of each package of callReasons.
func watchedFunctions(t *testing.T) map[string][]string {
	t.Helper()
	functions := map[string][]string{}
	for _, p := range goList(t, slices.Collect(maps.Keys(callReasons))...) {
		files, err := p.parse(token.NewFileSet(), slices.Concat(p.GoFiles, p.CgoFiles)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.IsExported() {
					functions[p.ImportPath] = append(functions[p.ImportPath], f.Name.Name)
				}
			}
		}
	}
	for path := range callReasons {
		if !slices.Contains(functions[path], "Open") {
			t.Fatalf("%s: the list of functions is not right: Open is not among %d", path, len(functions[path]))
		}
	}
	return functions
}

// checkImports holds a package against bans, allowed and onlyStandard.
func checkImports(p *pkg) []string {
	var out []string
	room := p.room()
	tests := slices.Concat(p.TestImports, p.XTestImports)
	for _, b := range bans {
		out = append(out, bannedImports(room, p.Imports, b, b.except)...)
		out = append(out, bannedImports(room, tests, b, slices.Concat(b.except, b.inTests))...)
	}
	for pattern, rooms := range allowed {
		if !match(pattern, room) {
			continue
		}
		for _, path := range p.Imports {
			other, ours := strings.CutPrefix(path, module+"/")
			if ours && !matchAny(rooms, other) {
				out = append(out, fmt.Sprintf("%s imports %s: %s", room, other, reasons[pattern]))
			}
		}
	}
	if slices.Contains(onlyStandard, room) {
		for _, path := range p.Imports {
			// The first element of a path outside of the standard library has a dot.
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") && path != module+"/internal/lock" {
				out = append(out, fmt.Sprintf("%s imports %s: %s", room, path, reasons[room]))
			}
		}
	}
	return out
}

func bannedImports(room string, imports []string, b ban, except []string) []string {
	if matchAny(except, room) {
		return nil
	}
	var out []string
	for _, path := range imports {
		if match(b.imports, path) {
			out = append(out, fmt.Sprintf("%s imports %s: %s", room, path, b.reason))
		}
	}
	return out
}

// checkCalls finds references to watched functions, called or not, in the files of a package that
// are not tests.
func checkCalls(p *pkg, functions map[string][]string) []string {
	banned := func(path, function string) bool {
		return slices.Contains(functions[path], function) && !slices.ContainsFunc(callRules, func(r callRule) bool {
			return r.imports == path && match(r.room, p.room()) &&
				(r.functions == nil || slices.Contains(r.functions, function))
		})
	}
	var out []string
	fset := token.NewFileSet()
	files, err := p.parse(fset, slices.Concat(p.GoFiles, p.CgoFiles)...)
	if err != nil {
		return []string{err.Error()}
	}
	for name, file := range files {
		local := localNames(file)
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := selector.X.(*ast.Ident)
			if !ok {
				return true
			}
			if path, function := local[x.Name], selector.Sel.Name; banned(path, function) {
				at := fset.Position(n.Pos())
				out = append(out, fmt.Sprintf("%s/%s:%d: %s.%s: %s",
					p.room(), name, at.Line, x.Name, function, callReasons[path]))
			}
			return true
		})
	}
	return out
}

// localNames maps the names under which a file knows watched packages to their paths.
func localNames(file *ast.File) map[string]string {
	local := map[string]string{}
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if _, watched := callReasons[path]; err != nil || !watched {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		local[name] = path
	}
	return local
}
