package tryout

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// system is what programs that install packages change in directories: each object with its inode
// number, size and times, also that of the last change of the inode, which no program can set back.
func system(t *testing.T, dirs string) map[string]string {
	t.Helper()
	out := harness.Shell(t, "", `for d in `+dirs+`; do
		if [ -e $d ]; then find $d -xdev ! -path '*/__pycache__*' ! -path /var/lib/apt/lists/partial -printf '%p\t%i %s %T@ %C@ %m %U:%G %l\n'; fi; done`)
	objects := map[string]string{}
	for line := range strings.Lines(out) {
		path, attributes, _ := strings.Cut(line, "\t")
		objects[path] = attributes
	}
	if len(objects) == 0 {
		t.Fatalf("there is nothing in %s", dirs)
	}
	return objects
}

// keepSystem fails the test unless directories of the system are at its end as they were. Plain
// users cannot change them.
func keepSystem(t *testing.T, e *harness.Env, dirs string) {
	t.Helper()
	if e.Mode != harness.ModeRoot {
		return
	}
	before := system(t, dirs)
	t.Cleanup(func() {
		if d := harness.DiffLines(before, system(t, dirs)); d != "" {
			t.Errorf("the system has changed:\n%s", harness.Clip(d))
		}
	})
}

// installs runs a script that installs something. The output must have a text, and the list of
// changes must have lines.
func (s *site) installs(script, output string, changes ...string) {
	s.t.Helper()
	out, errs, code := s.run("--throw-away", "--", "sh", "-euc", script)
	if code != 0 || !strings.Contains(out, output) {
		s.t.Errorf("%q: exit %d, %s%s", script, code, out, harness.Clip(errs))
	}
	for _, line := range changes {
		if !strings.Contains(errs, line+"\n") {
			s.t.Errorf("%q: the changes lack %q:\n%s", script, line, harness.Clip(errs))
		}
	}
}

// makeDeb makes a package for dpkg and apt.
func (s *site) makeDeb(e *harness.Env) (path string) {
	pkg, path := s.base+"/pkg", s.home+"/e2e.deb"
	harness.Build(s.t, e, pkg, "file usr/share/fuse-overlay-e2e/f \"f\"\nfile DEBIAN/control \"\"\nfile DEBIAN/postinst 0755 \"\"")
	harness.Write(s.t, pkg+"/DEBIAN/control",
		"Package: fuse-overlay-e2e\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: test\n")
	harness.Write(s.t, pkg+"/DEBIAN/postinst", "#!/bin/sh\nset -e\necho configured >/etc/fuse-overlay-e2e\nrm -f /etc/issue.net\n")
	harness.Shell(s.t, "", "dpkg-deb --root-owner-group -b "+pkg+" "+path)
	harness.RemoveTree(pkg)
	return path
}

// Root installs and removes packages, and breaks the system.
func TestPackagesOfTheSystem(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		keepSystem(t, e, "/etc /usr /opt /var/lib/dpkg /var/lib/apt /var/cache/apt /var/log/apt /var/log/dpkg.log")
		s := newSite(t, e)
		deb := s.makeDeb(e)
		for _, install := range []string{"dpkg -i ", "apt-get install -y -q --no-install-recommends "} {
			s.installs(install+deb+"; dpkg -s fuse-overlay-e2e; cat /etc/fuse-overlay-e2e", "Status: install ok installed",
				"A /etc/fuse-overlay-e2e", "A /usr/share/fuse-overlay-e2e", "A /usr/share/fuse-overlay-e2e/f",
				"A /var/lib/dpkg/info/fuse-overlay-e2e.list", "M /var/lib/dpkg/status\tcontent,times")
		}
		s.installs("rm -r /etc; echo gone", "gone\n", "D /etc")
	})
}

// wheel is a script of Python that makes a package for pip.
const wheel = `
import zipfile
with zipfile.ZipFile("e2e_fuse_overlay-1-py3-none-any.whl", "w") as z:
    d = "e2e_fuse_overlay-1.dist-info/"
    z.writestr("e2e_fuse_overlay.py", "answer = 42\n")
    z.writestr(d + "METADATA", "Metadata-Version: 2.1\nName: e2e-fuse-overlay\nVersion: 1\n")
    z.writestr(d + "WHEEL", "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(d + "RECORD", "e2e_fuse_overlay.py,,\n" + "".join(d + n + ",,\n" for n in ("METADATA", "WHEEL", "RECORD")))
`

// pip installs into the system as root of the machine, and into the home of each user.
func TestPip(t *testing.T) {
	eachMode(t, func(t *testing.T, e *harness.Env, s *site) {
		keepSystem(t, e, "/usr/local /usr/lib/python3 /usr/bin")
		harness.Write(t, s.home+"/wheel.py", wheel)
		harness.Shell(t, s.home, python+" wheel.py && rm wheel.py")
		t.Setenv("PIP_BREAK_SYSTEM_PACKAGES", "1") // else the one of Debian installs into a virtual environment only
		const install = python + " -m pip install -q --no-index --no-cache-dir --disable-pip-version-check --no-warn-script-location --root-user-action=ignore "
		const use = ` ./*.whl; cd /; ` + python + ` -c "import e2e_fuse_overlay as e; print(e.answer)"`
		s.installs(install+"--user"+use, "42\n", "A "+s.home+"/.local")
		if e.Mode == harness.ModeRoot {
			dir := strings.TrimSpace(harness.Shell(t, "", python+` -c "import sysconfig; print(sysconfig.get_path('purelib'))"`))
			s.installs(install+use, "42\n", "A "+dir+"/e2e_fuse_overlay.py")
		}
	})
}

const python = "/usr/bin/python3"

// make builds and installs a program with the defaults of its makefile: as root below /usr/local,
// else below the home.
func TestMakeInstall(t *testing.T) {
	eachMode(t, func(t *testing.T, e *harness.Env, s *site) {
		keepSystem(t, e, "/usr/local")
		harness.Write(t, s.home+"/Makefile", `PREFIX ?= /usr/local
prog: a
	cp a $@
install: prog
	install -D -m 755 prog $(PREFIX)/bin/fuse-overlay-e2e
	ln -sf fuse-overlay-e2e $(PREFIX)/bin/fuse-overlay-e2e-link
`)
		prefix := "/usr/local"
		if e.Mode != harness.ModeRoot {
			prefix = s.home + "/.local"
		}
		s.installs(fmt.Sprintf("make -s; make -s install PREFIX=%s; ls -l %[1]s/bin", prefix), "fuse-overlay-e2e-link -> fuse-overlay-e2e",
			"A "+s.home+"/prog")
		if _, err := os.Lstat(prefix + "/bin/fuse-overlay-e2e"); err == nil {
			t.Error("the program is installed in the real system")
		}
	})
}
