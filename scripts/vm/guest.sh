#!/bin/bash
# The first process of the machine: mounts, runs the tests, leaves results on the last disk, and
# turns the machine off.
set -u
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
umask 022

disk=vd
[ ! -e /dev/ubda ] || disk=ubd
results=/var/tmp/results

power_off() {
	sync
	busybox poweroff -f
	sleep 60
}

prepare() {
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mkdir -p /dev/pts /dev/shm
	mount -t devpts devpts /dev/pts
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t tmpfs -o mode=1777 tmpfs /tmp
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	ln -sf /proc/self/fd /dev/fd
	mkdir -p /lib/modules "$results"
	mount -o ro "/dev/${disk}c" /lib/modules
	depmod 2>/dev/null || true
	busybox ip link set lo up
	hostname vm
	local module
	for module in fuse overlay loop; do
		modprobe "$module" || echo "vm: no module $module"
	done
}

# run_suite runs one package of tests: run_suite NAME REGEXP. The console shows each test that ends,
# so that it names the last one before a test that hangs. The tests left out need a
# compiler, podman or containerd.
run_suite() {
	local name=$1 log=$results/$1.log code start=$SECONDS
	cd "/mnt/src/e2e/$name" || return
	env FUSE_OVERLAY_BIN=/mnt/fuse-overlay "/mnt/tests/$name.test" -test.v -test.count=1 -test.timeout=60m \
		-test.skip='^Test(Go|ExampleOfContainerd|StorageConfigurations)$' -test.run="$2" 2>&1 </dev/null | tee "$log" | grep --line-buffered '^--- '
	code=${PIPESTATUS[0]}
	echo "$code" >"$results/$name.code"
	printf 'vm: %-12s exit %s, %s passed, %s failed, %s not applicable, %s s\n' "$name" "$code" \
		"$(grep -c '^--- PASS' "$log")" "$(grep -c '^--- FAIL' "$log")" "$(grep -c '^ *--- SKIP' "$log")" \
		"$((SECONDS - start))" | tee -a "$results/summary"
	tar -C "$results" -cf "/dev/${disk}d" .
}

prepare
echo "vm: ready, kernel $(uname -r)"
set -a
# shellcheck source=/dev/null # the variables of the caller of vm.sh
. /mnt/environment
set +a
while read -r name regexp; do
	run_suite "$name" "$regexp"
done </mnt/suites
echo "vm: done"
power_off
