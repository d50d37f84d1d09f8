package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tests of this file use docs/examples.

const examples = "../../docs/examples"

// The lines of the fstab and the mount unit mount, in a /srv of the test's own.
func TestExamplesMount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/srv")
		harness.Shell(t, e.Dir+"/srv", "mkdir base upper upper2 merged merged2 merged3; echo -n x >base/f")
		for _, name := range []string{"fstab", "srv-merged.mount"} {
			harness.Check(t, os.WriteFile(filepath.Join(e.Dir, name), []byte(harness.ReadText(t, examples+"/"+name)), 0o644))
		}
		out, err := privately(t, e, mountFunctions+`
			mount --bind $DIR/srv /srv
			tab="--fstab $DIR/fstab"
			mount $tab -a
			expect /srv/merged "fuse.fuse-overlay rw,*"; expect /srv/merged2 "fuse.fuse-overlay rw,*"; expect /srv/merged3 ""
			mount $tab /srv/merged3; expect /srv/merged3 "fuse.fuse-overlay ro,nosuid,nodev,noexec,*"
			cat /srv/merged*/f; umount /srv/merged /srv/merged2 /srv/merged3
			# As systemd does it.
			unit() { sed -n "s/^$1=//p" $DIR/srv-merged.mount; }
			mount "$(unit What)" "$(unit Where)" -t "$(unit Type)" -o "$(unit Options)"
			expect /srv/merged "fuse.fuse-overlay rw,nodev,*"; cat /srv/merged/f; umount /srv/merged`)
		if err != nil || out != "xxxx" {
			t.Errorf("%v: %q", err, out)
		}
	})
}

// systemd accepts the units.
func TestExamplesOfUnits(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, name := range []string{"srv-merged.mount", "containerd-fuse-overlayfs.service"} {
			// The machine need not have the program of the service.
			text := strings.Replace(harness.ReadText(t, examples+"/"+name),
				"ExecStart=/usr/local/bin/containerd-fuse-overlayfs-grpc", "ExecStart=/bin/true", 1)
			harness.Write(t, filepath.Join(e.Dir, name), text)
			if out, err := harness.RunIn(e.Dir, nil, harness.CommandLimit, "systemd-analyze", "verify",
				"./"+name); err != nil || out != "" {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	})
}

// containerd reads the configuration and finds the snapshotter in it. The version here is 1. Of the
// part for version 2 the test checks only that it exists.
func TestExampleOfContainerd(t *testing.T) {
	dump, err := harness.Run("containerd", "--config", examples+"/containerd.toml", "config", "dump")
	harness.Check(t, err)
	if !regexp.MustCompile(`\[proxy_plugins\.fuse-overlayfs\]\n\s*address = "/run/containerd-fuse-overlayfs\.sock"`).MatchString(dump) {
		t.Errorf("no snapshotter in the configuration:\n%s", dump)
	}
	text := harness.ReadText(t, examples+"/containerd.toml")
	for _, want := range []string{
		`capabilities = ["remap-ids"]`,
		"[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  platform = \"linux\"\n  snapshotter = \"fuse-overlayfs\"",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the example lacks %s", want)
		}
	}
}

// The configurations name the path at which make install installs the program.
func TestExamplesOfConfigurations(t *testing.T) {
	for _, name := range []string{"storage.conf", "storage-rootless.conf"} {
		m := regexp.MustCompile(`(?m)^mount_program = "(.*)"$`).FindStringSubmatch(harness.ReadText(t, examples+"/"+name))
		if m == nil || m[1] != "/usr/local/bin/fuse-overlay" {
			t.Errorf("%s: mount_program is %q", name, m)
		}
	}
	var docker map[string]string
	harness.Check(t, json.Unmarshal([]byte(harness.ReadText(t, examples+"/docker-daemon.json")), &docker))
	harness.Equal(t, "docker's storage driver", docker["storage-driver"], "fuse-overlayfs")
}
