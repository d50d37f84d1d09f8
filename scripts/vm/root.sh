# shellcheck shell=bash disable=SC2154 # vm.sh sets the variables of all parts
# The root image: Debian with the tools that the tests call, made once. It has no kernel and no
# program of this tree.

# root_suite is the suite of the root image, whatever the kernel: the tests know its tools.
root_suite=bookworm

# root_packages are the packages of scripts/deps.sh without engines and compilers.
root_packages=acl,apt,attr,btrfs-progs,busybox-static,debootstrap,e2fsprogs,fuse3,fuse-overlayfs,kmod,libc-bin
root_packages+=,libcap2-bin,make,mount,passwd,perl-base,procps,squashfs-tools,strace,systemd,uidmap,util-linux,xfsprogs

# make_image makes a file system of a folder, with some room: make_image DIR FILE MEGABYTES.
make_image() {
	local size
	size=$(du -s --block-size=1M "$1" | cut -f 1)
	rm -f "$2"
	mke2fs -q -t ext4 -L "$(basename "$2" .img)" -d "$1" "$2" "$((size + size / 8 + $3))M" >/dev/null
}

# make_root sets root_image.
make_root() {
	root_image=$VM_CACHE/root-$root_suite-$(echo "$root_packages" | sha256sum | cut -c -8).img
	[ ! -e "$root_image" ] || return 0
	echo "vm: making the root image, which takes some minutes"
	local dir=$run/root
	mkdir "$dir"
	# In memory: dpkg syncs each file.
	unshare --mount bash -euo pipefail -s <<-SCRIPT
		mount -t tmpfs -o mode=755 tmpfs $dir
		debootstrap --variant=minbase --include=$root_packages $root_suite $dir $VM_MIRROR >$run/debootstrap.log ||
			{ tail $run/debootstrap.log >&2; exit 1; }
		rm -rf $dir/var/cache/apt/archives/*.deb $dir/var/lib/apt/lists/*
		printf '%s\n' '#!/bin/bash' 'for disk in ubd vd; do' \
			'	[ ! -e /dev/\${disk}b ] || mount -o ro /dev/\${disk}b /mnt' \
			'done' 'exec /bin/bash /mnt/guest.sh' >$dir/usr/sbin/vm-init
		chmod 755 $dir/usr/sbin/vm-init
		$(declare -f make_image)
		make_image $dir $run/root.img 4096
	SCRIPT
	mv "$run/root.img" "$root_image"
	rmdir "$dir"
}
