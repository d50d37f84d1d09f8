package rights

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// EnvSELinuxPolicy is a variable of the environment: the file of testdata/selinux.cil, compiled.
// TestSELinux loads it, and turns enforcement on. The machine has to be a throwaway one, whose
// kernel has SELinux and no policy yet.
const EnvSELinuxPolicy = "FUSE_OVERLAY_SELINUX_POLICY"

const (
	selinuxFolder = "/sys/fs/selinux"
	selinuxXattr  = "security.selinux"

	labelFile  = "sys_u:object_r:file_t:s0"
	labelFuse  = "sys_u:object_r:fuse_t:s0"
	labelOwn   = "sys_u:object_r:cont_file_t:s0" // which the confined process may use
	labelOther = "sys_u:object_r:other_file_t:s0"
	labelC1C2  = "sys_u:object_r:cont_file_t:s0:c1,c2"
	confined   = "sys_u:sys_r:cont_t:s0:c1,c2"
)

func loadSELinuxPolicy(t *testing.T, file string) {
	t.Helper()
	policy, err := os.ReadFile(file)
	harness.Check(t, err)
	if _, err := os.Stat(selinuxFolder + "/load"); errors.Is(err, fs.ErrNotExist) {
		harness.Check(t, unix.Mount("selinuxfs", selinuxFolder, "selinuxfs", 0, ""))
	}
	harness.Check(t, os.WriteFile(selinuxFolder+"/load", policy, 0))
	harness.Check(t, os.WriteFile(selinuxFolder+"/enforce", []byte("1"), 0))
	t.Cleanup(func() { harness.Check(t, os.WriteFile(selinuxFolder+"/enforce", []byte("0"), 0)) })
}

func labelOf(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, selinuxXattr, buf)
	harness.Check(t, err)
	return strings.TrimRight(string(buf[:n]), "\x00")
}

func relabel(path, label string) error {
	return unix.Lsetxattr(path, selinuxXattr, append([]byte(label), 0), 0)
}

// asConfined runs a shell command as a confined process.
func asConfined(command string) (string, error) {
	out, err := exec.Command("sh", "-c", "printf %s "+confined+" >/proc/self/attr/current && "+command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// labelledLayers has objects with labels.
func labelledLayers(t *testing.T, o *harness.Overlay) {
	t.Helper()
	for path, label := range map[string]string{"own": labelOwn, "other": labelOther, "d": labelOwn, "d/in": labelOwn} {
		harness.Check(t, relabel(o.Lowers[0]+"/"+path, label))
	}
	harness.Check(t, relabel(o.Upper, labelOwn))
}

const labelledTable = "file own \"own\"\nfile other \"other\"\nfile plain \"plain\"\nfile d/in \"in\""

// Without context= all objects of the mount have the label that the policy gives to FUSE, and they
// cannot be relabelled (D73). Copies in the upper keep their labels. New objects there get the
// label that the policy gives to a new object of the daemon in that directory (D74). With context=
// all objects of the mount have that label, and the kernel checks confined processes against it.
func TestSELinux(t *testing.T) {
	policy := os.Getenv(EnvSELinuxPolicy)
	if policy == "" {
		t.Skip("no policy of SELinux is given")
	}
	loadSELinuxPolicy(t, policy)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		t.Run("labels of layers", func(t *testing.T) { testLabels(t, harness.NewEnv(t, e.Mode)) })
		t.Run("context", func(t *testing.T) { testContext(t, harness.NewEnv(t, e.Mode)) })
	})
}

func testLabels(t *testing.T, e *harness.Env) {
	o := e.Overlay(t, labelledTable)
	labelledLayers(t, o)
	o.Mount()
	for path, label := range map[string]string{"own": labelOwn, "other": labelOther, "d/in": labelOwn, "plain": labelFile} {
		if !o.Kernel {
			label = labelFuse
		}
		harness.Equal(t, "the label of "+path, labelOf(t, o.Path(path)), label)
	}
	for path, label := range map[string]string{"own": labelOwn, "other": labelOther, "d/in": labelOwn, "plain": labelFile} {
		harness.Check(t, os.Chmod(o.Path(path), 0o666))
		harness.Equal(t, "the label of the copy of "+path, labelOf(t, o.Upper+"/"+path), label)
	}
	harness.Write(t, o.Path("new"), "")
	harness.Write(t, o.Path("d/new"), "")
	harness.Equal(t, "the label of a new file", labelOf(t, o.Upper+"/new"), labelOwn)
	harness.Equal(t, "the label of a new file below", labelOf(t, o.Upper+"/d/new"), labelOwn)
	err := relabel(o.Path("plain"), labelOwn)
	out, denied := asConfined("cat " + o.Path("own"))
	if o.Kernel {
		harness.Check(t, err)
		harness.Check(t, denied)
		harness.Equal(t, "the label in the upper", labelOf(t, o.Upper+"/plain"), labelOwn)
		return
	}
	harness.Equal(t, "relabelling", harness.ErrnoName(err), "ENOTSUP")
	if denied == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("a confined process reads an object with the label of FUSE: %q, %v", out, denied)
	}
}

func testContext(t *testing.T, e *harness.Env) {
	for label, allowed := range map[string]bool{labelC1C2: true, labelOther: false} {
		e := harness.NewEnv(t, e.Mode)
		o := e.Overlay(t, labelledTable)
		labelledLayers(t, o)
		o.Opts = append(o.Opts, `context="`+label+`"`)
		o.KernelOpts = `context="` + label + `"`
		o.Mount()
		for _, path := range []string{"", "own", "other", "d/in", "plain"} {
			harness.Equal(t, "the label of /"+path, labelOf(t, o.Path(path)), label)
		}
		harness.Equal(t, "relabelling", harness.ErrnoName(relabel(o.Path("own"), labelOwn)), "ENOTSUP")
		for _, command := range []string{"cat M/other", "echo >>M/plain", "echo >M/d/new", "ls M/d"} {
			out, err := asConfined(strings.ReplaceAll(command, "M", o.Point))
			if (err == nil) != allowed || err != nil && !strings.Contains(out, "Permission denied") {
				t.Errorf("context=%s: %s by a confined process: %q, %v", label, command, out, err)
			}
		}
		if allowed {
			stored := labelOwn // D74
			if o.Kernel {
				stored = label
			}
			harness.Equal(t, "the label of a new object in the upper", labelOf(t, o.Upper+"/d/new"), stored)
		}
		o.Unmount()
	}
}
