package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// checkInstallation fails the test unless a folder has all files of an installation. helper is the
// place of the mount helper, zsh the folder of the completions of zsh; compressed is whether pages
// end in .gz.
func checkInstallation(t *testing.T, dir, prefix, helper, zsh string, compressed bool) {
	t.Helper()
	suffix := ""
	if compressed {
		suffix = ".gz"
	}
	for _, path := range []string{
		"bin/fuse-overlay", "libexec/fuse-overlay/fuse-overlay-commands",
		"share/man/man1/fuse-overlay.1" + suffix, "share/man/man1/fuse-overlay-diff.1" + suffix,
		"share/bash-completion/completions/fuse-overlay", "share/fish/vendor_completions.d/fuse-overlay.fish",
		zsh + "/_fuse-overlay", "share/doc/fuse-overlay/README.md", "share/doc/fuse-overlay/LICENSE",
		"share/doc/fuse-overlay/CHANGELOG.md", "share/doc/fuse-overlay/licenses-of-modules" + suffix,
		"share/doc/fuse-overlay/docs/CONTAINERS.md", "share/doc/fuse-overlay/docs/examples/storage.conf",
	} {
		info, err := os.Lstat(filepath.Join(dir, prefix, path))
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if helper != "" {
		target, err := os.Readlink(filepath.Join(dir, helper))
		harness.Check(t, err)
		harness.Equal(t, helper, target, "/usr/bin/fuse-overlay")
	}
	// The program finds the commands in libexec.
	out := script(t, dir, filepath.Join(".", prefix, "bin/fuse-overlay")+" version")
	harness.Equal(t, "version", strings.SplitN(out, "\n", 2)[0], "fuse-overlay version "+versionOfBuild(t))
	harness.Equal(t, "linked libraries", script(t, dir, "ldd ./"+prefix+"/bin/fuse-overlay 2>&1 || true"), "\tnot a dynamic executable\n")
}

// versionOfBuild is the version in the names of the packages.
func versionOfBuild(t *testing.T) string {
	t.Helper()
	name := filepath.Base(built(t, ".deb"))
	version := strings.Split(name, "_")[1]
	if version[0] >= '0' && version[0] <= '9' && strings.Contains(version, ".") {
		version = "v" + version // a tag
	}
	return version
}

// rpm installs the package, with its scripts, verifies and removes it.
func TestRPM(t *testing.T) {
	r := newRoot(t)
	pkg := built(t, ".rpm")
	rpm := "rpm --root " + string(r) + " --dbpath /var/lib/rpm "
	script(t, "/", rpm+"--nodeps -i "+pkg)
	checkInstallation(t, string(r), "usr", "usr/sbin/mount.fuse-overlay", "share/zsh/site-functions", true)
	harness.Equal(t, "files that differ", script(t, "/", rpm+"--nodeps -V fuse-overlay"), "")
	harness.Equal(t, "recommended", script(t, "/", rpm+"-q --recommends fuse-overlay"), "fuse3\n")
	r.run(t, "the program runs", ours+quickStart)
	script(t, "/", rpm+"--nodeps -U --force "+pkg)
	r.run(t, "an upgrade keeps the name", ours)
	script(t, "/", rpm+"-e fuse-overlay")
	harness.Equal(t, "left", script(t, string(r), "find . -name '*fuse-overlay*' ! -path './var/lib/rpm/*' ! -path './tmp/*'"), "")
}

// pacman installs, checks and removes the package.
func TestArch(t *testing.T) {
	pkg, dir := built(t, ".pkg.tar.zst"), harness.NewEnv(t, harness.ModeRoot).Dir
	harness.Mkdir(t, dir+"/db", dir+"/root")
	pacman := "pacman --noconfirm --config /dev/null --root root --dbpath db --cachedir cache --hookdir hooks --gpgdir gpg --logfile log "
	script(t, dir, pacman+"-U "+pkg)
	checkInstallation(t, dir+"/root", "usr", "usr/bin/mount.fuse-overlay", "share/zsh/site-functions", true)
	if out := script(t, dir, pacman+"-Qk fuse-overlay"); !strings.Contains(out, " 0 missing files") {
		t.Error(out)
	}
	if out := script(t, dir, pacman+"-Qi fuse-overlay"); !regexp.MustCompile(`Optional Deps +: fuse3`).MatchString(out) {
		t.Error(out)
	}
	script(t, dir, pacman+"-R fuse-overlay")
	harness.Equal(t, "left", script(t, dir, "find root -name '*fuse-overlay*'"), "")
}

// Debian has no apk: the package is unpacked. Alpine has no alternatives, so it has no scripts.
func TestAlpine(t *testing.T) {
	pkg, dir := built(t, ".apk"), harness.NewEnv(t, harness.ModeRoot).Dir
	script(t, dir, "bsdtar -xf "+pkg)
	checkInstallation(t, dir, "usr", "sbin/mount.fuse-overlay", "share/zsh/site-functions", true)
	info := harness.ReadText(t, dir+"/.PKGINFO")
	if !regexp.MustCompile(`(?m)^pkgver = [0-9.]+(_[a-z]+[0-9]*)*-r0$`).MatchString(info) || !strings.HasPrefix(info, "pkgname = fuse-overlay\n") {
		t.Error(info)
	}
	hidden := script(t, dir, "find . -maxdepth 1 -name '.*' -type f")
	harness.Equal(t, "scripts", hidden, "./.PKGINFO\n")
}

// The archive is unpacked to any place, and the program runs there.
func TestArchive(t *testing.T) {
	dir := harness.NewEnv(t, harness.ModeRoot).Dir
	script(t, dir, "mkdir local; tar -xzf "+built(t, ".tar.gz")+" -C local --strip-components=1 --no-same-owner")
	checkInstallation(t, dir, "local", "", "share/zsh/site-functions", false)
	script(t, dir, `PATH=$PWD/local/bin:$PATH`+quickStart)
	owners := script(t, dir, "tar --numeric-owner -tvzf "+built(t, ".tar.gz")+` | awk '$2 != "0/0" || $1 ~ /^.....w|^........w/'`)
	harness.Equal(t, "files of others, or that others can write", owners, "")
}

// The checksums are those of all files.
func TestChecksums(t *testing.T) {
	dir := folder(t)
	script(t, dir, "sha256sum --strict -c SHA256SUMS")
	var named []string
	for line := range strings.Lines(harness.ReadText(t, dir+"/SHA256SUMS")) {
		named = append(named, strings.Fields(line)[1])
	}
	entries, err := os.ReadDir(dir)
	harness.Check(t, err)
	var files []string
	for _, e := range entries {
		if e.Name() != "SHA256SUMS" {
			files = append(files, e.Name())
		}
	}
	slices.Sort(named)
	if !slices.Equal(named, files) {
		t.Errorf("checksums of %q, files %q", named, files)
	}
}

// Versions of packages are in the order of the commits.
func TestVersions(t *testing.T) {
	folder(t)
	order := []string{"devel", "v0.9.0-alpha.2", "v0.9.0-beta.1", "v0.9.0-rc.1", "v0.9.0-rc.1-3-gabc1234", "v0.9.0-rc.2", "v0.9.0",
		"v0.9.0-5-gabc1234", "v0.9.0-12-gabc1234", "v0.10.0"}
	newer := map[string]string{
		"deb": `dpkg --compare-versions %s lt %s`,
		"rpm": `test "$(rpm --eval "%%{lua:print(rpm.vercmp('%s', '%s'))}")" = -1`,
	}
	for format, compare := range newer {
		versions := make([]string, len(order))
		for i, v := range order {
			versions[i] = versionOf(t, format, v)
		}
		for i := range versions[1:] {
			script(t, "/", fmt.Sprintf(compare, versions[i], versions[i+1]))
		}
	}
	for v, want := range map[string]string{
		"v1.2.3": "1.2.3-r0", "v1.2.3-rc.4": "1.2.3_rc4-r0", "v1.2.3-5-gabc1234": "1.2.3_p5-r0", "v1.2.3-rc.4-5-gabc1234": "1.2.3_rc4_p5-r0",
		"abc1234": "0.0.0_git20261130-r0", "abc1234-dirty": "0.0.0_git20261130-r0",
	} {
		harness.Equal(t, v, versionOf(t, "apk", v), want)
	}
	for v, want := range map[string]string{ // as vercmp(8) orders them
		"v1.2.3": "1.2.3", "v1.2.3-rc.4": "1.2.3rc4", "v1.2.3-5-gabc1234": "1.2.3+5.abc1234", "abc1234": "0.0.0+20261130.abc1234",
	} {
		harness.Equal(t, v, versionOf(t, "arch", v), want)
	}
	harness.Equal(t, "dirty", versionOf(t, "deb", "v1.2.3-dirty"), "1.2.3+dirty")
	for _, bad := range []string{"1.2.3", "v1.2", "v1.2.3-final", "v1.2.3 ", "", "$(id)"} {
		if out, err := versionScript("deb", bad); err == nil {
			t.Errorf("version %q is taken: %q", bad, out)
		}
	}
}

func versionOf(t *testing.T, format, version string) string {
	t.Helper()
	out, err := versionScript(format, version)
	if err != nil {
		t.Fatalf("%s %s: %v: %s", format, version, err, out)
	}
	return strings.TrimSpace(out)
}

func versionScript(format, version string) (string, error) {
	return harness.Run("../../packaging/version.sh", format, version, "20261130")
}
