package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lockList is the file whose package comment lists all locks, outermost first.
const lockList = "fs/doc.go"

// lockRooms are the rooms whose locks are listed: those of the daemon.
var lockRooms = []string{"cmd/...", "copyup", "fs/...", "inodecache", "internal/...", "whiteout"}

// lockless are rooms in lockRooms that no request passes, and the room that makes the ranked
// mutexes.
var lockless = []string{"internal/archtest", "internal/lock", "internal/podman", "internal/testkit/..."}

const lockReason = "a lock that is not in the one list of " + lockList + " has no place in the lock order, " +
	"and a mutex without a rank is not checked by -tags lockrank"

// mutex is a lock that a room declares.
type mutex struct {
	name string // PACKAGE.TYPE.FIELD, without PACKAGE in fs
	rank string
}

// TestLocks compares the list of locks with the mutexes of the code, and its order with that of
// their ranks.
func TestLocks(t *testing.T) {
	ranks := rankOrder(t)
	listed := listedLocks(t)
	declared := map[string]string{}
	for _, p := range goList(t, "./...") {
		if !matchAny(lockRooms, p.room()) || matchAny(lockless, p.room()) {
			continue
		}
		mutexes, violations := p.mutexes(t)
		for _, v := range violations {
			t.Errorf("%s: %s", v, lockReason)
		}
		for _, m := range mutexes {
			declared[m.name] = m.rank
			if !slices.Contains(listed, m.name) {
				t.Errorf("%s has rank %s and is not listed: %s", m.name, m.rank, lockReason)
			}
		}
	}
	last := 0
	for _, name := range listed {
		rank, found := declared[name]
		at := slices.Index(ranks, rank)
		switch {
		case !found:
			t.Errorf("%s lists %s, which is no lock of the code", lockList, name)
		case at < 0:
			t.Errorf("%s has rank %s, which is not in the order of internal/lock", name, rank)
		case at < last:
			t.Errorf("%s lists %s, of rank %s, below a lock of rank %s", lockList, name, rank, ranks[last])
		}
		last = max(last, at)
	}
}

// mutexes returns the fields of ranked mutexes in a package, and what it uses of package sync
// instead.
func (p *pkg) mutexes(t *testing.T) (found []mutex, violations []string) {
	t.Helper()
	files, err := p.parse(token.NewFileSet(), p.GoFiles...)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range files {
		prefix := file.Name.Name + "."
		if p.room() == "fs" {
			prefix = ""
		} else if file.Name.Name == "main" {
			prefix = filepath.Base(p.room()) + "."
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "sync" && (n.Sel.Name == "Mutex" || n.Sel.Name == "RWMutex") {
					violations = append(violations, fmt.Sprintf("%s/%s uses sync.%s", p.room(), name, n.Sel.Name))
				}
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					found = append(found, lockFields(prefix+n.Name.Name, s)...)
				}
			}
			return true
		})
	}
	return found, violations
}

// lockFields returns the fields of a struct whose type is a ranked mutex or an array of them.
func lockFields(owner string, s *ast.StructType) (found []mutex) {
	for _, field := range s.Fields.List {
		of := field.Type
		if a, ok := of.(*ast.ArrayType); ok {
			of = a.Elt
		}
		generic, ok := of.(*ast.IndexExpr)
		if !ok || selects(generic.X, "lock") == "" {
			continue
		}
		for _, name := range field.Names {
			found = append(found, mutex{owner + "." + name.Name, selects(generic.Index, "lock")})
		}
	}
	return found
}

// selects returns NAME of an expression PACKAGE.NAME; empty for anything else.
func selects(e ast.Expr, pkg string) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); !ok || x.Name != pkg {
		return ""
	}
	return s.Sel.Name
}

// rankOrder reads the order of the ranks, outermost first, from internal/lock.
func rankOrder(t *testing.T) (ranks []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "internal/lock/order.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "order" {
			return true
		}
		for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			ranks = append(ranks, e.(*ast.CompositeLit).Type.(*ast.Ident).Name)
		}
		return false
	})
	if len(ranks) == 0 {
		t.Fatal("internal/lock has no order")
	}
	return ranks
}

// listedLine is a line of the list: a name at some indentation, then what the lock is for.
var listedLine = regexp.MustCompile(`^//\t *([\w.-]+) +\S`)

// listedLocks reads the names in the list of locks.
func listedLocks(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, lockList))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "// Lock order")
	if !found {
		t.Fatalf("%s has no list of locks", lockList)
	}
	for line := range strings.Lines(after) {
		if m := listedLine.FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}
