package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/examples tells people to use is used here.

const examples = "../docs/examples"

// The lines of the fstab and the mount unit mount what they say, in a /srv of the test's own.
func TestExamplesMount(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		mkdir(t, e.dir+"/srv")
		sh(t, e.dir+"/srv", "mkdir base upper upper2 merged merged2 merged3; echo -n x >base/f")
		for _, name := range []string{"fstab", "srv-merged.mount"} {
			check(t, os.WriteFile(filepath.Join(e.dir, name), []byte(readText(t, examples+"/"+name)), 0o644))
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

// The units are what systemd takes.
func TestExamplesOfUnits(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, name := range []string{"srv-merged.mount", "containerd-fuse-overlayfs.service"} {
			// The program of the service need not be on this machine.
			text := strings.Replace(readText(t, examples+"/"+name), "ExecStart=/usr/local/bin/containerd-fuse-overlayfs-grpc", "ExecStart=/bin/true", 1)
			write(t, filepath.Join(e.dir, name), text)
			if out, err := runIn(e.dir, nil, commandLimit, "systemd-analyze", "verify", "./"+name); err != nil || out != "" {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	})
}

// Containerd reads the configuration and finds the snapshotter in it. The version here is 1: of what version 2 wants, only that
// it is there can be tested.
func TestExampleOfContainerd(t *testing.T) {
	dump, err := runCommand("containerd", "--config", examples+"/containerd.toml", "config", "dump")
	check(t, err)
	if !regexp.MustCompile(`\[proxy_plugins\.fuse-overlayfs\]\n\s*address = "/run/containerd-fuse-overlayfs\.sock"`).MatchString(dump) {
		t.Errorf("no snapshotter in the configuration:\n%s", dump)
	}
	text := readText(t, examples+"/containerd.toml")
	for _, want := range []string{
		`capabilities = ["remap-ids"]`,
		"[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  platform = \"linux\"\n  snapshotter = \"fuse-overlayfs\"",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the example lacks %s", want)
		}
	}
}

// The configurations name the program where make install puts it.
func TestExamplesOfConfigurations(t *testing.T) {
	for _, name := range []string{"storage.conf", "storage-rootless.conf"} {
		m := regexp.MustCompile(`(?m)^mount_program = "(.*)"$`).FindStringSubmatch(readText(t, examples+"/"+name))
		if m == nil || m[1] != "/usr/local/bin/fuse-overlay" {
			t.Errorf("%s: mount_program is %q", name, m)
		}
	}
	var docker map[string]string
	check(t, json.Unmarshal([]byte(readText(t, examples+"/docker-daemon.json")), &docker))
	equal(t, "docker's storage driver", docker["storage-driver"], "fuse-overlayfs")
}
