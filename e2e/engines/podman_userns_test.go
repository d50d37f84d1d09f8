package engines

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Containers in user namespaces of their own see other ids than those on disk. The mount program
// gets the mapping (uidmapping, gidmapping).

// giveAway prints the owners of objects of the image, and of new, changed and chowned objects.
const giveAway = `
	cd /data
	echo new >new; mkdir newdir; ln -s x newlink; echo more >>owned; mv dir dir2; chown 7:8 kept; chown -R 1000:1000 tree
	stat -c '%n %u:%g' . new newdir newlink owned changed dir2 dir2/sub/deep kept tree tree/a /bin/busybox`

const ownersSeen = `. 0:0
new 0:0
newdir 0:0
newlink 0:0
owned 1000:1000
changed 0:0
dir2 0:0
dir2/sub/deep 0:0
kept 7:8
tree 1000:1000
tree/a 1000:1000
/bin/busybox 0:0
`

func TestPodmanUserNamespaces(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		cases := map[string][]string{
			"auto":     {"--userns=auto"},
			"auto big": {"--userns=auto:size=3000"},
			"mapped":   {"--uidmap=0:1:2000", "--gidmap=0:101:2000"},
		}
		if e.Rootless() { // root is refused
			cases["keep-id"] = []string{"--userns=keep-id", "--user=0:0"}
		}
		for name, options := range cases {
			t.Run(name, func(t *testing.T) {
				args := append(append([]string{"--name", "owners"}, options...), imageBusybox, "sh", "-euc",
					"cat /proc/self/uid_map; "+giveAway)
				e.removeLater(t, "owners")
				_, out := e.runToEnd(t, args...)
				maps := strings.Count(out, "\n") - strings.Count(ownersSeen, "\n")
				lines := strings.SplitAfterN(out, "\n", maps+1)
				harness.Equal(t, "the owners", lines[maps], ownersSeen)
				if fields := strings.Fields(lines[0]); len(fields) == 3 && fields[0] == "0" && fields[1] == "0" {
					t.Errorf("the container is in no user namespace of its own: %q", lines[0])
				}
				if e.podmanAtLeast(t, 5, 8) {
					// Its commit of such a container has no change of the container, whichever program mounts.
					return
				}
				// In an image of the container the ids are those of the container.
				e.podman(t, "commit", "--quiet", "owners", "localhost/owners")
				e.removeImageLater(t, "localhost/owners")
				look := "cd /data; " + giveAway[strings.Index(giveAway, "stat"):]
				harness.Equal(t, "the owners in the new image", e.inContainer(t, "localhost/owners", look), ownersSeen)
				harness.Equal(t, "the owners in the new image, in such a container", e.inContainer(t, "localhost/owners", look,
					options...), ownersSeen)
			})
		}
	})
}

// With keep-id the user of the container is the user outside, and owns its files in a volume in
// both.
func TestPodmanKeepID(t *testing.T) {
	harness.NeedDaemon(t)
	onEngine(t, engineRootless, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		dir := e.folder(t)
		out := e.inContainer(t, imageBusybox, "id -u; echo x >/v/f; stat -c %u /v/f; echo y >/tmp/f; stat -c %u /tmp/f /etc/passwd; ! echo z >>/etc/hostname 2>/dev/null",
			"--userns=keep-id", "--volume", dir+":/v")
		uid := strconv.Itoa(harness.PlainUser.UID)
		harness.Equal(t, "the ids", out, strings.Join([]string{uid, uid, uid, "0", ""}, "\n"))
		harness.Equal(t, "owner outside", int(harness.Lstat(t, dir+"/f").Uid), harness.PlainUser.UID)
	})
}
