package host

import "testing"

func TestMemoryLimit(t *testing.T) {
	table := ParseMountTable(`20 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw
21 20 0:21 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
22 20 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
23 20 0:23 / /unified rw - cgroup2 cgroup2 rw
24 20 0:22 /docker/abc /docker rw - cgroup cgroup rw,memory
`)
	for _, tt := range []struct {
		name, cgroups string
		files         map[string]string
		want          int64
	}{
		{"none", "", nil, 0},
		{"garbage", "x\n1:memory\n::\n", nil, 0},
		{"version 2", "0::/a/b\n", map[string]string{"/unified/a/b/memory.max": "1000\n"}, 1000},
		{"version 2, unlimited", "0::/a/b\n", map[string]string{"/unified/a/b/memory.max": "max\n"}, 0},
		{"a limit above", "0::/a/b\n", map[string]string{"/unified/a/b/memory.max": "max\n", "/unified/a/memory.max": "2000\n"}, 2000},
		{"the least", "0::/a/b\n", map[string]string{"/unified/a/b/memory.max": "3000\n", "/unified/a/memory.max": "2000\n"}, 2000},
		{"version 1", "4:pids:/x\n5:cpu,memory:/m\n", map[string]string{"/sys/fs/cgroup/memory/m/memory.limit_in_bytes": "48\n"}, 48},
		{"version 1, unlimited", "5:memory:/m\n",
			map[string]string{"/sys/fs/cgroup/memory/m/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"another controller", "5:pids:/m\n", map[string]string{"/sys/fs/cgroup/memory/m/memory.limit_in_bytes": "48\n"}, 0},
		{"a part of the hierarchy", "5:memory:/docker/abc/c\n", map[string]string{"/docker/c/memory.limit_in_bytes": "7\n"}, 7},
		{"its root", "5:memory:/docker/abc\n", map[string]string{"/docker/memory.limit_in_bytes": "8\n"}, 8},
		{"outside of it", "5:memory:/../x\n", map[string]string{"/docker/memory.limit_in_bytes": "9\n"}, 9},
	} {
		got := memoryLimit(tt.cgroups, table, func(name string) (string, bool) {
			text, ok := tt.files[name]
			return text, ok
		})
		if got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
