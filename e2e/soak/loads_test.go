package soak

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func allLoads() []*load {
	return []*load{
		{name: "build", round: build, pause: time.Second},
		{name: "packages", round: packages, pause: time.Second},
		{name: "trees", round: trees, pause: 300 * time.Millisecond},
		{name: "listings", round: listings, pause: 300 * time.Millisecond},
		{name: "data", round: data, pause: 300 * time.Millisecond},
		{name: "mounts", round: mounts, pause: 200 * time.Millisecond},
		{name: "clients", round: clients, pause: 500 * time.Millisecond},
	}
}

// built are packages of this module that import the standard library and each other alone.
var built = []string{
	"internal/quote", "internal/lock", "internal/message", "internal/commands", "internal/mountargs", "inodecache",
}

// prepare copies into the mount what the loads use.
func (s *soak) prepare() {
	s.t.Helper()
	harness.Mkdir(s.t, s.o.Path("build"), s.o.Path("trees"), s.o.Path("data"))
	module, err := filepath.Abs("../..")
	harness.Check(s.t, err)
	harness.Shell(s.t, module, "cp --parents -r -t "+s.o.Path("build")+" "+strings.Join(built, " ")+"\n"+
		"sed -n '/^module/p; /^go /p' go.mod >"+s.o.Path("build/go.mod"))
	harness.Shell(s.t, s.o.Point, "cp -r "+harness.DebianPackages(s.t)+" root/debs\n"+
		`printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d; chmod 755 usr/sbin/policy-rc.d`)
}

// build changes a source and compiles, in the mount. The compiler's cache lies there, too, and is
// removed now and then. A round without it also compiles what it needs of the standard library.
func build(s *soak, n int) error {
	const keptRounds = 10
	script := fmt.Sprintf("echo '// %d' >>inodecache/lru.go; echo '// %d' >>internal/quote/quote.go; mkdir -p tmp\n", n, n)
	if n%keptRounds == 0 {
		script += "rm -rf cache\n"
	}
	script += "go build ./... && go vet ./inodecache"
	dir := s.o.Path("build")
	environ := []string{
		"GOCACHE=" + dir + "/cache", "GOTMPDIR=" + dir + "/tmp", "CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=",
	}
	if out, err := harness.RunIn(dir, environ, roundLimit, "bash", "-euc", script); err != nil {
		return fmt.Errorf("%w\n%s", err, harness.Clip(out))
	}
	return nil
}

// packages installs packages of Debian, and purges them.
func packages(s *soak, _ int) error {
	out, err := harness.TryChroot(s.o.Point, "/bin/sh", `
		dpkg -i /root/debs/hello*.deb /root/debs/ed_*.deb /root/debs/sensible*.deb >/dev/null
		hello >/dev/null; dpkg --verify hello ed; dpkg --purge hello ed >/dev/null; test ! -e /usr/bin/hello`)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, harness.Clip(out))
	}
	return nil
}

// trees copies, renames, links and deletes trees: of the upper, and once of the lower.
func trees(s *soak, n int) error {
	script := fmt.Sprintf(`cd trees; cp -a ../usr/share/zoneinfo t%[1]d; cp -al t%[1]d linked; mv t%[1]d/Europe europe; mv t%[1]d moved
		chmod -R o-r europe; find moved -type l | sort | head -n 20 | xargs rm; find moved europe | wc -l >/dev/null
		mkdir -p moved/a/b; echo x >moved/a/b/c; mv -T europe moved/a/b/europe; rm -r linked; rm -r moved; test -z "$(ls)"`, n)
	if n == 0 {
		script = "rm -r usr/share/zoneinfo/Asia; mkdir usr/share/zoneinfo/Asia; echo x >usr/share/zoneinfo/Asia/new\n" + script
	}
	return s.shell(script)
}

// listings lists a large directory whose names change.
func listings(s *soak, n int) error {
	return s.shell(fmt.Sprintf(`cd large; for i in $(seq 200); do echo %d >own$i; done; ls -l | wc -l >/dev/null
		mv own1 n00001; touch n00002 n00003; rm n00004; echo back >n00004; test "$(ls | wc -l)" = %d
		rm own[0-9]*; find . -name 'n*9' | wc -l >/dev/null`, n, largeNames+199))
}

// data writes and reads large files, new ones and one of the lower.
func data(s *soak, n int) error {
	return s.shell(fmt.Sprintf(`cd data; dd if=/dev/zero of=big bs=1M count=32 status=none; echo %d >>big
		cp big copy; cmp big copy; truncate -s 1M copy; sync copy; rm big copy
		cp ../below part; cmp part ../below; echo >>../below; rm part`, n))
}

// mounts makes an overlay, works in it and unmounts it.
func mounts(s *soak, n int) error {
	dir := filepath.Join(s.e.Dir, "other")
	for _, d := range []string{"lower/d", "upper", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	script := fmt.Sprintf(`echo lower >lower/d/f; echo gone >lower/gone
		%[1]s -o lowerdir=lower,upperdir=upper,workdir=work mnt
		echo %[2]d >>mnt/d/f; rm mnt/gone; mkdir mnt/new; mv mnt/d/f mnt/new/f; grep -q %[2]d mnt/new/f
		%[1]s stats mnt >/dev/null; %[1]s umount mnt; test ! -e mnt/new`, harness.Program, n)
	if out, err := harness.RunIn(dir, nil, roundLimit, "bash", "-euc", script); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.RemoveAll(dir)
}

// clients sends the daemon a signal, reads its numbers, and connects to its control socket without
// a request.
func clients(s *soak, _ int) error {
	if err := syscall.Kill(s.o.PID, syscall.SIGUSR1); err != nil {
		return err
	}
	for _, args := range [][]string{{"stats", "--prometheus", s.o.Point}, {"list"}} {
		if out, err := harness.RunIn("", nil, roundLimit, harness.Program, args...); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	for _, text := range []string{"", "{", "nonsense\n"} {
		c, err := net.Dial("unix", fmt.Sprintf("/run/fuse-overlay/%d", s.o.Minor))
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte(text)); err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
