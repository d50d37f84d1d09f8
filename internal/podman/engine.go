package podman

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Engine is podman and buildah of one user, with one storage. Several goroutines may call its
// methods at the same time.
type Engine struct {
	config Config
	holder *exec.Cmd // holds the namespaces; all processes in them end with it
	input  io.Closer // the holder's stdin: the holder ends when the engine closes it
	pid    int       // of the first process in the namespaces
}

// startLimit is how long an engine may take to start, and to end. Both take far less.
const startLimit = 20 * time.Second

// holderScript is the first process of the new namespaces. It reaps the orphans there. It ends when
// its stdin ends. If the cgroups of both versions are mounted, crun refuses them; so the script
// unmounts version 2.
//
// The file idmapped-lower-dir-false is podman's record that the kernel's overlayfs cannot have
// idmapped lowers. Without it podman 4.3 passes such lowers to mount programs too, with an upper
// whose root is not mapped. Then no container of root with --userns=auto starts.
const holderScript = `
	exec 3<&0 # a program in the background gets /dev/null
	mount --make-rshared /
	if grep -q ' /sys/fs/cgroup/unified ' /proc/mounts; then umount /sys/fs/cgroup/unified; fi
	mount -t tmpfs -o mode=0755 tmpfs /run
	mkdir -p "$1"/storage/overlay; touch "$1"/storage/overlay/idmapped-lower-dir-false
	chmod 0711 "$1"; chown -R "$2" "$1"
	mount -t tmpfs -o mode=0755 tmpfs /var/lib
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm
	echo ready
	cat <&3 >/dev/null & wait`

// Start makes the folders of an engine and starts its namespaces. The caller must be root, and must
// Close the engine. The error contains what the first process wrote to its stderr.
func Start(c Config) (*Engine, error) {
	e := &Engine{config: c}
	owner := "0:0"
	if c.User != nil {
		owner = fmt.Sprintf("%d:%d", c.User.UID, c.User.GID)
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	e.holder = exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
		"--mount-proc", "bash", "-euc", holderScript, "bash", stateDir, owner)
	e.holder.Dir = "/"
	var stderr bytes.Buffer
	e.holder.Stderr = &stderr
	input, err := e.holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	e.input = input
	output, err := e.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := e.holder.Start(); err != nil {
		return nil, err
	}
	timer := time.AfterFunc(startLimit, func() { _ = e.holder.Process.Kill() })
	line, err := bufio.NewReader(output).ReadString('\n')
	timer.Stop()
	if err == nil && line == "ready\n" {
		e.pid, err = onlyChild(e.holder.Process.Pid)
	}
	if err != nil || line != "ready\n" {
		return nil, fmt.Errorf("make namespaces: %w\n%s", errors.Join(err, e.end()), stderr.String())
	}
	return e, nil
}

// onlyChild returns the process id of the one child of pid.
func onlyChild(pid int) (int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	var children []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		children = append(children, strings.Fields(string(text))...)
	}
	if len(children) != 1 {
		return 0, fmt.Errorf("process %d has the children %v, want one", pid, children)
	}
	return strconv.Atoi(children[0])
}

// Command returns a command that runs args in the engine's namespaces as the engine's user. Its
// environment names the configuration of podman and buildah. Its working directory is [Config].Dir.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	line := []string{"--target", strconv.Itoa(e.pid), "--mount", "--pid", "--"}
	if u := e.config.User; u != nil {
		line = append(line, "setpriv", "--reuid", strconv.Itoa(u.UID), "--regid", strconv.Itoa(u.GID), "--clear-groups",
			"--inh-caps=-all")
	}
	// nsenter resolves --wd in the namespace that it leaves, so sh changes the directory.
	line = append(line, "sh", "-c", `cd "$0" && exec "$@"`, e.config.Dir)
	cmd := exec.CommandContext(ctx, "nsenter", append(line, args...)...)
	cmd.Env = e.environment()
	cmd.Dir = "/"
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

// Run runs args as [Engine.Command] does, and kills the program after limit. It returns the
// program's stdout. The error contains its stderr.
func (e *Engine) Run(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := e.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not ended after %v: %w", limit, err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), err
}

// Rootless reports whether a plain user runs the engine.
func (e *Engine) Rootless() bool { return e.config.User != nil }

// Path returns the path of elem below [Config].Dir.
func (e *Engine) Path(elem ...string) string { return e.path(elem...) }

// Close ends all processes in the engine's namespaces; the kernel then removes their mounts. The
// folder of the engine stays.
func (e *Engine) Close() error {
	if err := e.end(); err != nil {
		return fmt.Errorf("end the engine in %s: %w", e.config.Dir, err)
	}
	return nil
}

func (e *Engine) end() error {
	err := e.input.Close()
	done := make(chan error, 1)
	go func() { done <- e.holder.Wait() }()
	select {
	case err2 := <-done:
		return errors.Join(err, err2)
	case <-time.After(startLimit):
		return errors.Join(err, fmt.Errorf("process %d does not end", e.holder.Process.Pid), e.holder.Process.Kill())
	}
}
