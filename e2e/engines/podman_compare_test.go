package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/podman"
)

// podman finds the changes of a container of a large image, although the kernel stops requesting
// xattrs of the image's mount while podman compares. If a file of the image has a capability, the
// requests go on, and the capability is in the image of the changes.
func TestPodmanComparesWithoutXattrs(t *testing.T) {
	harness.NeedDaemon(t)
	for name, more := range map[string]string{"none": "", "one": "setcap cap_net_raw+ep t/bin/capable"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(harness.RunDir, "podman-compare-"+name)
			harness.Mkdir(t, dir)
			log, program := filepath.Join(dir, "log"), filepath.Join(dir, "fuse-overlay")
			harness.Check(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\nexec %s -o log=%s \"$@\"\n", harness.Program, log), 0o755))
			p, err := podman.Start(podman.Config{Dir: dir, Program: program})
			harness.Check(t, err)
			e := &engine{Engine: p, name: "compare", images: map[string]bool{}}
			t.Cleanup(func() { harness.Check(t, e.Close()) })

			archive := filepath.Join(dir, "image.tar")
			harness.Shell(t, dir, `mkdir -p t/bin t/data t/proc t/dev t/sys t/tmp t/etc; cp "$(command -v busybox)" t/bin/busybox; ln -s busybox t/bin/sh
				cp t/bin/busybox t/bin/capable; `+more+`
				for d in $(seq 50); do mkdir t/data/$d; for f in $(seq 40); do echo $d $f >t/data/$d/$f; done; done
				tar --xattrs --xattrs-include='*' -C t -cf `+archive+` .; rm -r t`)
			e.podman(t, "import", "--quiet", archive, "localhost/many")
			e.podman(t, "run", "--name", "c", "localhost/many", "sh", "-euc",
				"cd /data; busybox rm 1/1; echo new >2/2; busybox chmod 600 3/3; busybox mkdir 4/d; busybox mv 5/5 5/new")
			diff := strings.Fields(e.podman(t, "diff", "c"))
			got := strings.Join(diff, " ")
			for _, want := range []string{"D /data/1/1", "C /data/2/2", "C /data/3/3", "A /data/4/d", "D /data/5/5", "A /data/5/new"} {
				if !strings.Contains(got, want) {
					t.Errorf("podman diff misses %s: %s", want, got)
				}
			}
			harness.Equal(t, "changes, with their five folders and /data", strings.Count(got, " /data"), 6+6)
			e.podman(t, "commit", "--quiet", "c", "localhost/changed")
			e.podman(t, "rm", "--force", "c")
			harness.Equal(t, "the new image", e.podman(t, "run", "--rm", "localhost/changed", "sh", "-c",
				"busybox find /data | busybox wc -l; busybox cat /data/2/2; busybox stat -c %a /data/3/3"), "2051\nnew\n600\n")
			caps := e.run(t, "sh", "-euc", `getcap "$(podman image mount localhost/changed)/bin/capable"; podman image unmount --all >/dev/null`)
			harness.Equal(t, "the capability is there", strings.Contains(caps, "cap_net_raw=ep"), more != "")
			text, err := os.ReadFile(log)
			harness.Check(t, err)
			quiet := harness.LogsQuiet(string(text))
			harness.Equal(t, "the kernel requests no xattrs", quiet, more == "")
		})
	}
}
