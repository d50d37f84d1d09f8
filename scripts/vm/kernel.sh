# shellcheck shell=bash disable=SC2154 # vm.sh sets the variables of all parts
# The kernels: packages of Debian, unpacked once for each way to boot.

# suite_of names the suite of a kernel.
suite_of() {
	case "$1" in
	5.10) echo bullseye ;;
	6.1) echo bookworm ;;
	6.12) echo trixie ;;
	sid) echo sid ;;
	*) die "KERNEL is 5.10, 6.1, 6.12 or sid, not '$1'" ;;
	esac
}

# apt_of calls a program of apt with the packages of a suite alone: apt_of SUITE PROGRAM ARGUMENT...
apt_of() {
	local dir=$VM_CACHE/apt-$1 program=$2
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $VM_MIRROR $1 main" >"$dir/sources.list"
	shift 2
	"$program" -q -o "Dir::State=$dir" -o "Dir::State::Lists=$dir/lists" -o "Dir::State::status=/dev/null" \
		-o "Dir::Cache=$dir" -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# unpack downloads packages of a suite, and unpacks them: unpack SUITE DIR PACKAGE...
unpack() {
	local suite=$1 dir=$2 package
	shift 2
	mkdir -p "$dir"
	(cd "$run" && apt_of "$suite" apt-get download "$@" >>"$run/apt.log")
	for package in "$run"/*.deb; do
		dpkg-deb -x "$package" "$dir"
		rm "$package"
	done
}

# get_kernel sets kernel_dir, the folder of a kernel for a way to boot. It has linux or vmlinuz, and
# modules.img.
get_kernel() {
	local suite
	suite=$(suite_of "$KERNEL")
	kernel_dir=$VM_CACHE/$suite-$1
	[ ! -e "$kernel_dir" ] || return 0
	echo "vm: getting the kernel $KERNEL ($1) of $suite"
	local dir=$run/kernel
	rm -rf "$dir"
	mkdir -p "$dir/modules"
	apt_of "$suite" apt-get update >>"$run/apt.log"
	"unpack_$1" "$suite" "$dir" || return 1
	make_image "$dir/modules" "$dir/modules.img" 8
	rm -rf "$dir/modules" "$dir/unpacked"
	mv "$dir" "$kernel_dir"
}

# unpack_uml unpacks user-mode Linux, and the C library of its suite, which it is run with.
unpack_uml() {
	unpack "$1" "$2/unpacked" user-mode-linux libc6 || return 1
	mv "$2"/unpacked/usr/lib/uml/modules/* "$2/modules/"
	mkdir -p "$2/host"
	cp "$2/unpacked/usr/bin/linux.uml" "$2/host/linux"
	cp -a "$2"/unpacked/lib* "$2/host/" 2>/dev/null || true
	cp -a "$2"/unpacked/usr/lib* "$2/host/" 2>/dev/null || true
	rm -rf "$2/host/lib/uml"
}

# unpack_debian unpacks the kernel of Debian, and makes an initramfs that mounts the root image.
unpack_debian() {
	local names
	names=$(apt_of "$1" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances linux-image-amd64 | grep -E '^linux-(image|modules|binary)-[0-9]')
	# shellcheck disable=SC2086 # several names
	unpack "$1" "$2/unpacked" $names || return 1
	find "$2/unpacked" -name 'vmlinuz*' -exec cp {} "$2/vmlinuz" \;
	local modules
	modules=$(find "$2/unpacked" -type d -path '*/lib/modules/*' -prune)
	mv "$modules" "$2/modules/"
	make_initramfs "$2"
}

# make_initramfs makes DIR/initramfs from busybox and the modules of disk and file system.
make_initramfs() {
	local dir=$1/initramfs.d version file
	version=$(basename "$1"/modules/*)
	mkdir -p "$dir/bin" "$dir/modules" "$dir/root" "$dir/dev" "$dir/proc"
	cp "$(command -v busybox)" "$dir/bin/busybox"
	mkdir -p "$1/lib"
	ln -s ../modules "$1/lib/modules"
	depmod -b "$1" "$version"
	for name in virtio_pci virtio_blk ext4; do
		modprobe -d "$1" -S "$version" --show-depends "$name"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$1/order"
	while read -r file; do
		case "$file" in
		*.xz) xz -dc "$file" >"$dir/modules/$(basename "$file" .xz)" ;;
		*) cp "$file" "$dir/modules/" ;;
		esac
		echo "busybox insmod /modules/$(basename "$file" .xz)" >>"$dir/load"
	done <"$1/order"
	cat >"$dir/init" <<-'SCRIPT'
		#!/bin/busybox sh
		busybox mount -t devtmpfs dev /dev
		. /load
		for i in 1 2 3 4 5 6 7 8 9; do [ -b /dev/vda ] || busybox sleep 1; done
		busybox mount -t ext4 /dev/vda /root || echo "vm: no root disk"
		busybox mount -o move /dev /root/dev
		exec busybox switch_root /root /sbin/vm-init
	SCRIPT
	chmod 755 "$dir/init"
	(cd "$dir" && find . | busybox cpio -o -H newc 2>/dev/null | gzip >"$1/initramfs")
	rm -rf "$dir" "${1:?}/order" "${1:?}/lib"
}
