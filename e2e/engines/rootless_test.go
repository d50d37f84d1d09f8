package engines

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The daemon of a plain user runs as uid 0 of the namespaces that rootlesskit makes. They map the
// subordinate ids of the user.

// runtimeDir is XDG_RUNTIME_DIR of the plain user. /run belongs to the test.
const runtimeDir = "/run/user"

// rootlesskitState is the folder where rootlesskit writes the id of its child process.
const rootlesskitState = runtimeDir + "/rootlesskit"

// tunDevice is the device by which slirp4netns makes the network of the namespaces.
const tunDevice = "/dev/net/tun"

// eachUser runs fn in ModePrivate for a client of root, and for one of the plain user.
func eachUser(t *testing.T, fn func(t *testing.T, e *harness.Env, user string)) {
	t.Helper()
	for _, user := range []string{engineRoot, engineRootless} {
		forUser(t, user, fn)
	}
}

// eachUserOfClients is eachUser for a test of minutes: make test-clients alone runs the part of the
// plain user, whose daemons mount as those of root do. Shorter tests run it always.
func eachUserOfClients(t *testing.T, fn func(t *testing.T, e *harness.Env, user string)) {
	t.Helper()
	forUser(t, engineRoot, fn)
	t.Run("of the plain user", func(t *testing.T) {
		needClients(t)
		forUser(t, engineRootless, fn)
	})
}

// forUser runs fn in ModePrivate for a client of one user.
func forUser(t *testing.T, user string, fn func(t *testing.T, e *harness.Env, user string)) {
	t.Helper()
	harness.NeedDaemon(t)
	t.Run(user, func(t *testing.T) {
		harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
			fn(t, e, user)
		})
	})
}

// rootlessCommand is a command that runs another as the plain user. It first makes what udev and a
// login make elsewhere. It makes the user the owner of the folder data, which is the command's home
// too, because dockerd writes a key there.
func rootlessCommand(t *testing.T, data string, environ ...string) []string {
	t.Helper()
	harness.Check(t, os.Chmod(tunDevice, 0o666))
	harness.Mkdir(t, runtimeDir)
	harness.Shell(t, "", "chown "+harness.PlainUser.Name+": "+runtimeDir+" "+data)
	return slices.Concat(asPlainUser, []string{"HOME=" + data, "XDG_RUNTIME_DIR=" + runtimeDir}, environ)
}

// enterNamespaces is a command that runs another in namespaces that rootlesskit has made. kinds are
// options of nsenter, such as --mount.
func enterNamespaces(t *testing.T, kinds ...string) []string {
	t.Helper()
	pid, err := os.ReadFile(rootlesskitState + "/child_pid")
	harness.Check(t, err)
	return slices.Concat([]string{"nsenter", "--target", strings.TrimSpace(string(pid))}, kinds, []string{"--"})
}

// client is the name of a user's client in the table of clients.
func client(name, user string) string { return fmt.Sprintf("%s, %s", name, user) }
