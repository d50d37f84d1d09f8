# shellcheck shell=bash disable=SC2154 # vm.sh sets the variables of all parts
# Boots the machine. Its disks are the root image, the payload, the modules and the results; what it
# changes on the root image is dropped.

# ready_limit is how many seconds a machine has to reach guest.sh.
declare -A ready_limit=([kvm]=30 [uml]=60 [tcg]=600)

# kvm_failed holds the boot of this machine in which KVM has not booted a kernel.
kvm_failed=$VM_CACHE/kvm-failed

# boot_machine runs the machine to its end, and sets way to the way by which it booted.
boot_machine() {
	for way in ${WAY:-kvm uml tcg}; do
		"can_$way" || continue
		"kernel_for_$way"
		echo "vm: booting $KERNEL ($way)"
		run_machine && return 0
		[ "$way" != kvm ] || cat /proc/sys/kernel/random/boot_id >"$kvm_failed"
		echo "vm: $KERNEL does not boot ($way): $(tail -n 1 "$run/console" | cut -c -200)"
	done
	die "no way boots $KERNEL; the console of the last one is $run/console"
}

can_kvm() { [ -w /dev/kvm ] && can_tcg && ! cmp -s "$kvm_failed" /proc/sys/kernel/random/boot_id; }
can_uml() { [ "$(uname -m)" = x86_64 ]; }
can_tcg() { command -v qemu-system-x86_64 >/dev/null; }

kernel_for_kvm() { get_kernel debian; }
kernel_for_uml() { get_kernel uml; }
kernel_for_tcg() { get_kernel debian; }

# run_machine prints the lines of guest.sh. It returns 1 if the machine does not get there.
run_machine() {
	local printer started=$SECONDS seconds=0 ready=''
	: >"$run/console"
	"start_$way" >>"$run/console" 2>&1 </dev/null &
	pid=$!
	trap 'kill -KILL "$pid" 2>/dev/null' EXIT
	tail -n +1 --pid="$pid" -f "$run/console" | sed -un 's/\r$//; s/^vm: /vm:   /p' &
	printer=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		seconds=$((SECONDS - started))
		[ -n "$ready" ] || ! grep -q '^vm: ready' "$run/console" || ready=1
		if [ -z "$ready" ] && [ "$seconds" -ge "${ready_limit[$way]}" ] || [ "$seconds" -ge "$VM_LIMIT" ]; then
			kill -KILL "$pid" 2>/dev/null || true
		fi
	done
	wait "$pid" 2>/dev/null || true
	trap - EXIT
	wait "$printer" || true
	grep -q '^vm: ready' "$run/console" || return 1
	grep -q '^vm: done' "$run/console" || echo "vm: the machine has ended before its tests, after $seconds s"
}

start_kvm() { start_qemu -accel kvm -cpu host; }
start_tcg() { start_qemu -accel tcg,thread=multi -cpu max; }

# start_qemu replaces the process by qemu with some more arguments.
start_qemu() {
	local disk disks=()
	for disk in "$root_image,snapshot=on" "$run/payload.img,readonly=on" "$kernel_dir/modules.img,readonly=on" \
		"$run/results.img"; do
		disks+=(-drive "if=virtio,format=raw,file.locking=off,file=$disk")
	done
	exec qemu-system-x86_64 "$@" -smp 2 -m 2G -display none -serial stdio -no-reboot -nic none \
		-kernel "$kernel_dir/vmlinuz" -initrd "$kernel_dir/initramfs" "${disks[@]}" \
		-append "console=ttyS0 quiet panic=-1 ${lsm:+lsm=$lsm}"
}

# start_uml replaces the process by user-mode Linux, which is a process of this machine. A chroot
# gives it the C library of its suite.
start_uml() {
	local host=$kernel_dir/host
	gcc -O2 -Wall -shared -fPIC -nostdlib -o "$run/xstate.so" "$here/xstate.c"
	mkdir -p "$host/proc" "$host/dev" "$host/tmp" "$host/cache"
	# shellcheck disable=SC2016 # the inner shell expands it
	exec unshare --mount --pid --fork --kill-child bash -euc '
		host=$1 cache=$2 run=/cache/${3#"$2"/} root=/cache/${4#"$2"/} modules=/cache/${5#"$2"/}
		mount -t proc proc "$host/proc"
		mount --bind /dev "$host/dev"
		mount -t tmpfs -o mode=1777 tmpfs "$host/dev/shm"
		mount -t tmpfs tmpfs "$host/tmp"
		mount --bind "$cache" "$host/cache"
		exec env -i HOME=/tmp LD_PRELOAD="$run/xstate.so" "$(command -v chroot)" "$host" /linux mem=2G con=null con0=fd:0,fd:1 \
			ubd0="$run/changes,$root" ubd1r="$run/payload.img" ubd2r="$modules" ubd3="$run/results.img" \
			root=/dev/ubda rw init=/sbin/vm-init quiet panic=-1 lsm="$6"
	' bash "$host" "$VM_CACHE" "$run" "$root_image" "$kernel_dir/modules.img" "${lsm:-yama}"
}
