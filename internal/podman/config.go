package podman

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Config says whose engine it is, and how it mounts.
type Config struct {
	// Dir is an existing folder, reachable by the user, for all that the engine keeps.
	Dir string
	// Program is the mount program; without one the kernel's overlayfs is used.
	Program string
	// MountOptions are given to every mount, in the words of the mount program.
	MountOptions []string
	// ForceMask is the mode that all files of the storage get ("shared", "700"), their own being kept in an extended
	// attribute; empty for none.
	ForceMask string
	// User is a plain user with subordinate ids, who runs the engine; nil for root.
	User *User
	// AutoUser is the name of the user whose subordinate ids --userns=auto of root gives out.
	AutoUser string
}

// User is a plain user.
type User struct {
	Name     string
	UID, GID int
}

// folders of an engine, below its Config.Dir.
const (
	confDir  = "conf"
	graphDir = "graph"
	tempDir  = "tmp"
	homeDir  = "home"
)

// stateDir is what podman wants to be gone after a boot: it lies in the engine's own /run, and its name is short because
// podman's clean-up after a container refuses one of more than 50 characters.
const stateDir = "/run/engine"

func (e *Engine) path(elem ...string) string {
	return filepath.Join(append([]string{e.config.Dir}, elem...)...)
}

// prepare makes the folders, which belong to the user and which containers' users may pass, and the configuration.
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
		fmt.Fprintf(&b, "[storage.options]\nroot-auto-userns-user = %q\nauto-userns-min-size = 1024\nauto-userns-max-size = 8192\n",
			e.config.AutoUser)
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

// containersConf keeps podman from what a machine of tests lacks: raised limits (CAP_SYS_RESOURCE), cgroups that crun
// takes, systemd, a journal, a network. static_dir stays unset: podman's own clean-up after a container is told of the
// storage only, and looks for the container below it.
func (e *Engine) containersConf() string {
	return fmt.Sprintf(`[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
cgroups = "disabled"
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

// environment is that of podman and buildah.
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
