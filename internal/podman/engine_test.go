package podman

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestNamespaces checks that an engine has namespaces of its own, and that its processes end with
// it.
func TestNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes namespaces of all kinds")
	}
	for name, user := range map[string]*User{"root": nil, "plain user": {Name: "nobody", UID: 65534, GID: 65534}} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/var/tmp", "fuse-overlay-podman-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			e, err := Start(Config{Dir: dir, User: user, Program: "/bin/true"})
			if err != nil {
				t.Fatal(err)
			}
			out, err := e.Run(10*time.Second, "sh", "-c", "id -u; pwd; ls -A /var/lib; echo $CONTAINERS_STORAGE_CONF; "+
				"touch tmp/f /run/engine/f graph/f; kill -0 1 || true")
			want := map[bool]string{true: "0", false: "65534"}[user == nil] + "\n" + dir + "\n" + dir + "/conf/storage.conf\n"
			if err != nil || out != want {
				t.Errorf("in the namespaces: %v, %q, want %q", err, out, want)
			}
			if _, err := e.Run(time.Second, "sleep", "98765"); err == nil || !strings.Contains(err.Error(), "not ended") {
				t.Errorf("a command that does not end: %v", err)
			}
			if left, err := e.Processes(); err != nil || len(left) != 1 || left[0] != "sleep 98765" {
				t.Errorf("processes: %v, %q", err, left)
			}
			if files, err := e.Temporary(); err != nil || len(files) != 1 {
				t.Errorf("temporary files: %v %v", err, files)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if _, err := e.Processes(); err == nil {
				t.Error("processes of an engine that has ended")
			}
			if out, err := exec.Command("pgrep", "-fx", "sleep 98765").Output(); err == nil {
				t.Errorf("a process is left: %s", out)
			}
		})
	}
}
