package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine describes the machine of the figures.
type machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	Memory     string `json:"memory"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	User       string `json:"user"`
	Load       string `json:"load"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d CPUs (%s), %s of memory, Linux %s, %s, as %s, load before %s",
		m.CPUs, m.CPU, m.Memory, m.Kernel, m.FileSystem, m.User, m.Load)
}

// describeMachine reads /proc and /sys. A value that they do not have is "?".
func describeMachine(dir string) machine {
	m := machine{
		CPU: field("/proc/cpuinfo", "model name"), CPUs: runtime.NumCPU(), Memory: memory(),
		Kernel: kernelRelease(), FileSystem: "?", User: "root", Load: "?",
	}
	if inUserNamespace() {
		m.User = "root of a user namespace"
	}
	if out, err := exec.Command("df", "--output=fstype", dir).Output(); err == nil {
		if words := strings.Fields(string(out)); len(words) == 2 {
			m.FileSystem = words[1]
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(load), " ")
	}
	return m
}

func memory() string {
	var kib int64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d kB", &kib); err != nil {
		return "?"
	}
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}

func kernelRelease() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(release))
}

// inUserNamespace reports whether uid 0 is another user outside of this user namespace.
func inUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
}

// field finds "key : value" in a file of /proc.
func field(file, key string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

// programVersion returns the line of --version with the name of the program. Some print the
// versions of libraries too.
func programVersion(words []string) string {
	out, err := exec.Command(words[0], append(words[1:len(words):len(words)], "--version")...).CombinedOutput()
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "fuse-overlay") && strings.Contains(line, "version") {
			return strings.TrimSpace(line)
		}
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}
