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

// Engine is podman and buildah of one user, with one storage. Its methods may be called from several goroutines at once.
type Engine struct {
	config Config
	holder *exec.Cmd // keeps the namespaces; everything in them ends with it
	input  io.Closer // the holder ends when it is closed
	pid    int       // the first process of the namespaces
}

// startLimit is far more than it takes to make two namespaces.
const startLimit = 20 * time.Second

// hold runs in the new namespaces as their first process: it reaps what is orphaned there, and ends with its input.
// Where the cgroups of both versions are mounted, crun refuses them; without the second version it takes the first.
//
// The file says, in podman's words, that the kernel's overlayfs cannot have idmapped lowers. Where it can, podman 4.3 gives
// them to mount programs too, with an upper whose root is not mapped, and no container of root with --userns=auto starts.
const hold = `
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

// Start makes an engine. Whoever starts one must be root, and must Close it.
func Start(c Config) (*Engine, error) {
	e := &Engine{config: c}
	owner := "0:0"
	if c.User != nil {
		owner = fmt.Sprintf("%d:%d", c.User.UID, c.User.GID)
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	e.holder = exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-euc", hold, "bash", stateDir, owner)
	e.holder.Dir = "/"
	var complaints bytes.Buffer
	e.holder.Stderr = &complaints
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
		return nil, fmt.Errorf("making namespaces: %w\n%s", errors.Join(err, e.end()), complaints.String())
	}
	return e, nil
}

// onlyChild is the process that unshare has started.
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
		return 0, fmt.Errorf("unshare has the children %v, want one", children)
	}
	return strconv.Atoi(children[0])
}

// Command is a program, and its arguments, to be run in the engine's namespaces by the engine's user. podman's and
// buildah's configuration is in its environment, and its working directory is the engine's folder.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	line := []string{"--target", strconv.Itoa(e.pid), "--mount", "--pid", "--"}
	if u := e.config.User; u != nil {
		line = append(line, "setpriv", "--reuid", strconv.Itoa(u.UID), "--regid", strconv.Itoa(u.GID), "--clear-groups",
			"--inh-caps=-all")
	}
	// nsenter's own --wd is a directory of the namespace that it leaves.
	line = append(line, "sh", "-c", `cd "$0" && exec "$@"`, e.config.Dir)
	cmd := exec.CommandContext(ctx, "nsenter", append(line, args...)...)
	cmd.Env = e.environment()
	cmd.Dir = "/"
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

// Run runs a program to its end and answers with its output, and with an error that tells what it wrote to stderr.
func (e *Engine) Run(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := e.Command(ctx, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not ended after %v: %w", limit, err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, complaints.String())
	}
	return out.String(), err
}

// Rootless says whether a plain user runs the engine.
func (e *Engine) Rootless() bool { return e.config.User != nil }

// Path is a path in the engine's folder.
func (e *Engine) Path(elem ...string) string { return e.path(elem...) }

// Close ends everything in the engine's namespaces, and so takes their mounts away. Its folder stays.
func (e *Engine) Close() error {
	if err := e.end(); err != nil {
		return fmt.Errorf("ending the engine in %s: %w", e.config.Dir, err)
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
		return errors.Join(err, errors.New("its first process does not end"), e.holder.Process.Kill())
	}
}
