package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFileLines     = 400
	maxFunctionLines = 60

	fileReason = "a file holds one question, and a reader has it in view: tables of cases do not count"
	funcReason = "a function is one thought: scenarios of tests do not count"
)

// A textException leaves one rule of checkText out for a file.
type textException struct {
	file   string // relative to the module
	reason string
}

// Files that do not keep a rule, and why.
var (
	longFiles     = []textException{}
	longFunctions = []textException{
		{"e2e/harness/...", "scenarios of tests"},
		{"fs/conn/serve.go", "a switch with a case for each request is a table of cases"},
	}
	errnoFlags = []textException{}
	xattrNames = []textException{
		{"internal/ondisk/...", "the room of names"},
		{"internal/testkit/...", "what a test compares with must not depend on what it tests"},
		{"e2e/...", "what a test compares with must not depend on what it tests"},
		{"bench/compare.go", "the calls of a container engine"},
	}
)

// checkText holds the files of a package against the rules about size, errnos and xattr names.
func checkText(p *pkg) []string {
	fset := token.NewFileSet()
	code := slices.Concat(p.GoFiles, p.CgoFiles)
	files, err := p.parse(fset, slices.Concat(code, p.TestGoFiles, p.XTestGoFiles)...)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for name, file := range files {
		path := strings.TrimPrefix(p.room()+"/"+name, "/")
		at := func(n ast.Node) string { return fmt.Sprintf("%s:%d", path, fset.Position(n.Pos()).Line) }
		if lines := linesOf(fset, file) - tableLines(fset, file); lines > maxFileLines && !excepted(longFiles, path) {
			out = append(out, fmt.Sprintf("%s has %d lines, want at most %d: %s", path, lines, maxFileLines, fileReason))
		}
		if !slices.Contains(code, name) {
			continue
		}
		long, err := p.checkFunctions(fset, name, file)
		if err != nil {
			return []string{err.Error()}
		}
		if !excepted(longFunctions, path) {
			out = append(out, long...)
		}
		if !excepted(errnoFlags, path) {
			out = append(out, checkErrnos(file, at)...)
		}
		out = append(out, checkSwaps(file, at)...)
		if !excepted(xattrNames, path) {
			out = append(out, checkXattrs(file, at)...)
		}
	}
	slices.Sort(out)
	return out
}

func excepted(exceptions []textException, path string) bool {
	return slices.ContainsFunc(exceptions, func(e textException) bool { return match(e.file, path) })
}

func linesOf(fset *token.FileSet, file *ast.File) int { return fset.File(file.Pos()).LineCount() }

// tableRows is how many elements make a literal a table of cases.
const tableRows = 5

// tableLines counts the lines of tables: composite literals of slices, arrays and maps.
func tableLines(fset *token.FileSet, file *ast.File) (lines int) {
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok || len(literal.Elts) < tableRows {
			return true
		}
		switch literal.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			lines += fset.Position(literal.End()).Line - fset.Position(literal.Pos()).Line
			return false
		}
		return true
	})
	return lines
}

// checkFunctions finds long functions. Lines that hold a comment alone do not count.
func (p *pkg) checkFunctions(fset *token.FileSet, name string, file *ast.File) (out []string, err error) {
	lines, err := p.lines(name)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		first, last := fset.Position(f.Body.Lbrace).Line, fset.Position(f.Body.Rbrace).Line
		n := 0
		for _, line := range lines[first:max(first, last-1)] {
			if !strings.HasPrefix(strings.TrimSpace(line), "//") {
				n++
			}
		}
		if n > maxFunctionLines {
			out = append(out, fmt.Sprintf("%s/%s: %s has %d lines, want at most %d: %s",
				p.room(), name, f.Name.Name, n, maxFunctionLines, funcReason))
		}
	}
	return out, nil
}

func (p *pkg) lines(name string) ([]string, error) {
	if p.sources != nil {
		return strings.Split(p.sources[name], "\n"), nil
	}
	text, err := os.ReadFile(filepath.Join(p.Dir, name))
	return strings.Split(string(text), "\n"), err
}

const errnoReason = "an errno is what a system call or a request returns; what a function of ours has to report is an error of its own"

// checkErrnos finds variables and constants of a package that give an errno another meaning: var
// errNotYet = unix.EAGAIN.
func checkErrnos(file *ast.File, at func(ast.Node) string) (out []string) {
	for _, decl := range file.Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range d.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, value := range v.Values {
				errno := selects(value, "unix") + selects(value, "syscall")
				if len(errno) > 1 && errno[0] == 'E' && strings.ToUpper(errno) == errno {
					out = append(out, fmt.Sprintf("%s: %s = %s: %s", at(v), v.Names[i].Name, errno, errnoReason))
				}
			}
		}
	}
	// Those of other systems, or of the kernel itself, never come from a system call that the
	// program makes.
	ast.Inspect(file, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok && slices.Contains(strangeErrnos, selects(e, "unix")) {
			out = append(out, fmt.Sprintf("%s: unix.%s: %s", at(n), selects(e, "unix"), errnoReason))
		}
		return true
	})
	return out
}

// strangeErrnos are returned by no system call on a layer.
var strangeErrnos = []string{"ERESTART", "ESRMNT", "EDOTDOT", "ENOTNAM", "ENAVAIL", "EBADE", "ENOANO", "ECHRNG"}

const swapReason = "another goroutine may use it meanwhile: pass the file, or the writer, that is to be used"

// checkSwaps finds assignments to variables of package os, such as os.Stderr.
func checkSwaps(file *ast.File, at func(ast.Node) string) (out []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok {
			for _, left := range a.Lhs {
				if name := selects(left, "os"); name != "" {
					out = append(out, fmt.Sprintf("%s: os.%s = ...: %s", at(a), name, swapReason))
				}
			}
		}
		return true
	})
	return out
}

const xattrReason = "each xattr name of the format is spelt once, in internal/ondisk: a new namespace touches one room"

// xattrParts are what a name of an xattr of the format begins with or holds.
var xattrParts = []string{"trusted.", "user.overlay.", "user.fuseoverlayfs.", "user.containers.", "overlay.", "security.", "system.posix_acl"}

// checkXattrs finds literals with names of xattrs.
func checkXattrs(file *ast.File, at func(ast.Node) string) (out []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		for _, part := range xattrParts {
			if strings.HasPrefix(literal.Value[1:], part) {
				out = append(out, fmt.Sprintf("%s: %s: %s", at(n), literal.Value, xattrReason))
				break
			}
		}
		return true
	})
	return out
}
