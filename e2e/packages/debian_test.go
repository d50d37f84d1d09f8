package packages

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// quickStart is the walk-through of the README, in a fresh folder.
const quickStart = `
	cd "$(mktemp -d)"
	mkdir lower upper work merged; echo base >lower/file
	fuse-overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
	echo changed >merged/file
	cat lower/file upper/file | tr "\\n" " " | grep -x "base changed "
	fuse-overlay list | grep "$PWD/merged"
	fuse-overlay umount merged
	fuse-overlay diff upper lower | grep "^M file"
`

// theirs fails unless the name fuse-overlayfs is the unchanged file of the package fuse-overlayfs,
// ours unless it leads to this program.
const (
	theirs = `test -f /usr/bin/fuse-overlayfs; test ! -L /usr/bin/fuse-overlayfs; test -z "$(dpkg --verify fuse-overlayfs)"
	`
	ours = `test "$(readlink -f /usr/bin/fuse-overlayfs)" = /usr/bin/fuse-overlay
	fuse-overlayfs --version | grep '^fuse-overlayfs: version'
	`
)

// documentedDiversion returns the commands for Debian in docs/RELEASING.md.
func documentedDiversion(t *testing.T) string {
	t.Helper()
	_, text, found := strings.Cut(harness.ReadText(t, "../../docs/RELEASING.md"), "\n# Debian, as root\n")
	commands, _, ended := strings.Cut(text, "\n\n")
	if !found || !ended || !strings.HasPrefix(commands, "dpkg-divert ") {
		t.Fatalf("the document has no commands for Debian: %s", harness.Brief(text))
	}
	return commands + "\n"
}

// A package is installed by apt in a Debian 12 root, used by root and by a plain user, and removed.
func TestDebian(t *testing.T) {
	r := newRoot(t)
	harness.Shell(t, "/", "cp "+built(t, ".deb")+" "+string(r)+"/root/fuse-overlay.deb")
	for _, step := range []struct{ what, script string }{
		{"apt installs the package and fusermount3", `
			echo 'Acquire::Check-Valid-Until "false";' >/etc/apt/apt.conf.d/99test
			apt-get -q update
			apt-get -q -y --no-install-recommends install man-db
			! command -v fusermount3
			apt-get -q -y install /root/fuse-overlay.deb
			command -v fusermount3
			dpkg --audit; test -z "$(dpkg --verify fuse-overlay)"` + "\n" + ours},
		{"root mounts, by mount(8) too", quickStart + `
			mount -t fuse-overlay overlay merged -o lowerdir=lower,upperdir=upper,workdir=work
			grep " $PWD/merged fuse.fuse-overlay " /proc/self/mounts
			test "$(cat merged/file)" = changed
			umount merged`},
		{"a plain user mounts", `
			useradd -m user
			su user -c 'set -eux; ` + quickStart + `'`},
		{"man finds each page, and shells their completions", `
			man -w fuse-overlay
			for page in $(fuse-overlay __complete '' | cut -f 1 | grep -v '^:\|^help$'); do man -w fuse-overlay-$page; done
			MANPAGER=cat man fuse-overlay-list | grep -w NAME
			. /usr/share/bash-completion/completions/fuse-overlay; complete -p fuse-overlay
			test -e /usr/share/zsh/vendor-completions/_fuse-overlay
			test -e /usr/share/fish/vendor_completions.d/fuse-overlay.fish
			zcat /usr/share/doc/fuse-overlay/changelog.gz | grep '^# Changelog'
			zcat /usr/share/doc/fuse-overlay/licenses-of-modules.gz | grep '==== github.com/hanwen/go-fuse'
			grep Apache-2.0 /usr/share/doc/fuse-overlay/copyright`},
		{"an upgrade keeps the name fuse-overlayfs", `dpkg -i /root/fuse-overlay.deb` + "\n" + ours},
		{"the package fuse-overlayfs takes its name", `
			apt-get -q -y --no-install-recommends install fuse-overlayfs` + "\n" + theirs + `
			test -z "$(dpkg --verify fuse-overlay)"
			dpkg -i /root/fuse-overlay.deb` + "\n" + theirs},
		{"a local diversion gives the name back", `
` + documentedDiversion(t) + ours + `
			/usr/bin/fuse-overlayfs.debian --version
			update-alternatives --remove fuse-overlayfs /usr/bin/fuse-overlay
			dpkg-divert --local --rename --remove /usr/bin/fuse-overlayfs` + "\n" + theirs},
		{"the name returns with the removal of fuse-overlayfs", "apt-get -q -y purge fuse-overlayfs\n" + ours},
		{"nothing is left after the removal", `
			apt-get -q -y purge fuse-overlay; dpkg --audit
			rm -r /root/fuse-overlay.deb /tmp/*
			test -z "$(find / -xdev -name '*fuse-overlay*' ! -path '/var/cache/*' | tee /dev/stderr)"`},
	} {
		r.run(t, step.what, step.script)
	}
}

// The package fuse-overlayfs keeps its name if it is there first, and when fuse-overlay is removed.
func TestDebianAfterFuseOverlayfs(t *testing.T) {
	r := newRoot(t)
	harness.Shell(t, "/", "cp "+built(t, ".deb")+" "+string(r)+"/root/fuse-overlay.deb")
	r.run(t, "the packages are installed and one is removed", `
		echo 'Acquire::Check-Valid-Until "false";' >/etc/apt/apt.conf.d/99test
		apt-get -q update
		apt-get -q -y --no-install-recommends install fuse-overlayfs`+"\n"+theirs+`
		dpkg -i /root/fuse-overlay.deb`+"\n"+theirs+`
		fuse-overlay version
		dpkg --purge fuse-overlay`+"\n"+theirs)
}
