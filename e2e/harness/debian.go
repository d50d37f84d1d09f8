package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// CacheDir is the folder for what runs download once, and later runs use again.
func CacheDir() string {
	if dir := os.Getenv(EnvCache); dir != "" {
		return dir
	}
	return filepath.Join("/var/tmp", "fuse-overlay-e2e-cache")
}

// DebianRoot is a debootstrap root of Debian 12. It is made once, and later runs use it again.
func DebianRoot(t *testing.T) string {
	t.Helper()
	root := filepath.Join(CacheDir(), "bookworm")
	if _, err := os.Stat(root + ".complete"); err == nil {
		return root
	}
	Check(t, os.RemoveAll(root))
	Mkdir(t, CacheDir())
	mirror, err := RunIn("../..", nil, time.Minute, "scripts/mirror.sh")
	if err != nil {
		t.Fatalf("%v\n%s", err, mirror)
	}
	out, err := RunIn("/", nil, 8*time.Minute, "debootstrap", "--variant=minbase", "bookworm", root, strings.TrimSpace(mirror))
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	Write(t, root+".complete", "")
	return root
}

// packages are small packages with conffiles, alternatives and maintainer scripts. Tests install
// and purge them.
var packages = []string{"hello", "ed", "cron", "cron-daemon-common", "sensible-utils"}

// DebianPackages is a folder of small packages for DebianRoot. They are downloaded once, and later
// runs use them again.
func DebianPackages(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(CacheDir(), "debs")
	if _, err := os.Stat(dir + ".complete"); err == nil {
		return dir
	}
	Mkdir(t, dir)
	args := append([]string{"-o", "APT::Sandbox::User=root", "download"}, packages...)
	if _, err := RunIn(dir, nil, 2*time.Minute, "apt-get", args...); err != nil {
		_, _ = RunIn("/", nil, 3*time.Minute, "apt-get", "update")
		if out, err := RunIn(dir, nil, 2*time.Minute, "apt-get", args...); err != nil {
			t.Fatalf("apt-get download: %v\n%s", err, out)
		}
	}
	Write(t, dir+".complete", "")
	return dir
}
