package podman

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Config is the user, the storage and the kind of mounts of an engine.
type Config struct {
	// Dir is an existing folder that the user can reach. It holds all files of the engine.
	Dir string
	// Program is the mount program. If it is empty, podman mounts the kernel's overlayfs.
	Program string
	// MountOptions are the options of every mount, in the syntax of the mount program.
	MountOptions []string
	// ForceMask is podman's force_mask, "shared" or "700": all files of the storage get this mode,
	// and an xattr stores their own. Empty: podman sets no such mode.
	ForceMask string
	// User is the plain user that runs the engine; it has subordinate ids. nil: root runs it.
	User *User
	// AutoUser is a user with subordinate ids. Root's podman takes the ids for --userns=auto there.
	AutoUser string
}

// User is a plain user.
type User struct {
	Name     string
	UID, GID int
}

// The folders of an engine, below its Config.Dir.
const (
	confDir  = "conf"
	graphDir = "graph"
	tempDir  = "tmp"
	homeDir  = "home"
)

// stateDir is the folder of the state that podman drops at a boot, in the engine's own /run. Its
// name is short because "podman container cleanup" refuses one of more than 50 characters.
const stateDir = "/run/engine"

func (e *Engine) path(elem ...string) string {
	return filepath.Join(append([]string{e.config.Dir}, elem...)...)
}

// prepare makes the folders and the configuration. They belong to the user; the ids of containers
// may search the folders.
func (e *Engine) prepare() error {
	policy := filepath.Join(homeDir, ".config", "containers")
	for _, dir := range []string{"", confDir, graphDir, tempDir, homeDir, filepath.Dir(policy), policy} {
		if err := os.MkdirAll(e.path(dir), 0o711); err != nil {
			return err
		}
		if u := e.config.User; u != nil {
			if err := os.Chown(e.path(dir), u.UID, u.GID); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string]string{
		filepath.Join(confDir, "storage.conf"):    e.storageConf(),
		filepath.Join(confDir, "containers.conf"): e.containersConf(),
		filepath.Join(confDir, "registries.conf"): "unqualified-search-registries = []\n",
		filepath.Join(policy, "policy.json"):      `{"default": [{"type": "insecureAcceptAnything"}]}`,
	} {
		if err := os.WriteFile(e.path(name), []byte(text), 0o644); err != nil {
			return err
		}
		if u := e.config.User; u != nil {
			if err := os.Chown(e.path(name), u.UID, u.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) storageConf() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrootless_storage_path = %q\nrunroot = %q\n",
		e.path(graphDir), e.path(graphDir), filepath.Join(stateDir, "storage"))
	if e.config.AutoUser != "" {
		fmt.Fprintf(&b, "[storage.options]\nroot-auto-userns-user = %q\n", e.config.AutoUser)
		b.WriteString("auto-userns-min-size = 1024\nauto-userns-max-size = 8192\n")
	}
	b.WriteString("[storage.options.overlay]\n")
	if e.config.Program != "" {
		fmt.Fprintf(&b, "mount_program = %q\n", e.config.Program)
	}
	if len(e.config.MountOptions) > 0 {
		fmt.Fprintf(&b, "mountopt = %q\n", strings.Join(e.config.MountOptions, ","))
	}
	if e.config.ForceMask != "" {
		fmt.Fprintf(&b, "force_mask = %q\n", e.config.ForceMask)
	}
	return b.String()
}

// containersConf returns containers.conf. It turns off what a machine that runs tests may lack:
// higher limits (CAP_SYS_RESOURCE), cgroups that crun accepts, systemd, a journal, a network.
// static_dir stays unset: "podman container cleanup" gets the path of the storage as its only
// parameter, and looks for the container below it.
func (e *Engine) containersConf() string {
	return fmt.Sprintf(`[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
cgroups = "disabled"
pids_limit = 0
netns = "none"
log_driver = "k8s-file"
[network]
network_config_dir = %q
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = %q
volume_path = %q
image_copy_tmp_dir = %q
`, e.path("networks"), filepath.Join(stateDir, "libpod"), e.path("volumes"), e.path(tempDir))
}

// environment returns the environment of podman and buildah.
func (e *Engine) environment() []string {
	env := []string{
		"CONTAINERS_CONF=" + e.path(confDir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + e.path(confDir, "storage.conf"),
		"CONTAINERS_REGISTRIES_CONF=" + e.path(confDir, "registries.conf"),
		"TMPDIR=" + e.path(tempDir),
		"HOME=" + e.path(homeDir),
		"XDG_RUNTIME_DIR=" + stateDir,
		"XDG_CONFIG_HOME=" + e.path(homeDir, ".config"),
		"XDG_DATA_HOME=" + e.path(homeDir, ".local"),
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C",
	}
	if u := e.config.User; u != nil {
		env = append(env, "USER="+u.Name)
	}
	return env
}
