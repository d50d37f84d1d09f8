package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// database is a program that keeps a database for as long as the file "go on" is there. Each
// transaction moves an amount between two rows, so their sum stays.
const database = `
import os, sqlite3, sys
db = sqlite3.connect("db", isolation_level=None)
db.execute("pragma synchronous=%s" % sys.argv[1])
db.execute("create table t (k integer primary key, v integer)")
db.executemany("insert into t values (?, 1000)", [(k,) for k in range(50)])
n = 0
while os.path.exists("go on"):
    db.execute("begin immediate")
    db.execute("update t set v = v - 1 where k = ?", (n % 50,))
    db.execute("update t set v = v + 1 where k = ?", ((n * 7 + 1) % 50,))
    db.execute("commit")
    assert db.execute("select sum(v) from t").fetchone()[0] == 50000
    n += 1
assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
print(n)
`

// TestDatabase has a database in the mount, whose program must not fail while the daemon is killed.
func TestDatabase(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing")
	}
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		o := mounted(t, e, "file go")
		harness.Check(t, os.WriteFile(o.Path("go on"), nil, 0o644))
		c := exec.Command(python, "-c", database, "normal")
		c.Dir = o.Point
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		harness.Check(t, c.Start())
		k := startKiller(t, o, kills())
		<-k.done
		time.Sleep(100 * time.Millisecond)
		harness.Check(t, os.Remove(o.Path("go on")))
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %s", err, out.String())
		}
		t.Logf("transactions: %s", out.String())
	})
}

// TestBuild builds a program in the mount while the daemon is killed.
func TestBuild(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("go is missing")
	}
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		o := mounted(t, e, "dir src\n")
		const packages = 30
		main := "package main\n\nimport (\n"
		for i := range packages {
			dir := o.Path(fmt.Sprintf("src/p%d", i))
			harness.Mkdir(t, dir)
			text := fmt.Sprintf("package p%d\n\nfunc F() int { return %d }\n", i, i)
			harness.Check(t, os.WriteFile(filepath.Join(dir, "p.go"), []byte(text), 0o644))
			main += fmt.Sprintf("\t\"hello/p%d\"\n", i)
		}
		main += ")\n\nfunc main() {\n\tsum := 0\n"
		for i := range packages {
			main += fmt.Sprintf("\tsum += p%d.F()\n", i)
		}
		main += "\tprintln(sum)\n}\n"
		harness.Check(t, os.WriteFile(o.Path("src/go.mod"), []byte("module hello\n\ngo 1.21\n"), 0o644))
		harness.Check(t, os.WriteFile(o.Path("src/main.go"), []byte(main), 0o644))
		k := startKiller(t, o, kills())
		builds := 0
		for k.running() || builds == 0 {
			c := exec.Command(goTool, "build", "-o", "hello", ".")
			c.Dir = o.Path("src")
			c.Env = append(os.Environ(), "GOCACHE="+o.Path("cache"), "GOTMPDIR="+o.Point, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOTOOLCHAIN=local")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("build %d: %v\n%s", builds, err, out)
			}
			out, err := exec.Command(o.Path("src/hello")).CombinedOutput()
			if want := fmt.Sprintln(packages * (packages - 1) / 2); string(out) != want || err != nil {
				t.Fatalf("build %d: %q, %v", builds, out, err)
			}
			builds++
			harness.Check(t, os.WriteFile(o.Path(fmt.Sprintf("src/p%d/q.go", builds%packages)),
				[]byte(fmt.Sprintf("package p%d\n\nconst Q = %d\n", builds%packages, builds)), 0o644))
		}
		t.Logf("builds: %d", builds)
	})
}
