#!/usr/bin/env bash
# Installs the packages that the tests and the demo need, or with the argument "bench" those of the
# bench. The argument "clients" adds those that only make test-clients needs. On other systems than
# Debian and Ubuntu it prints which commands are missing. If nothing is missing, it does nothing and
# needs no network.
set -euo pipefail

# Packages of Debian and Ubuntu, and what the tests need them for.
packages=(
	acl             # setfacl, getfacl
	attr            # setfattr, getfattr
	btrfs-progs     # mkfs.btrfs: an upper with reflinks
	buildah         # images built through the mount
	busybox-static  # a root file system in one file
	ca-certificates # module and package downloads
	containerd      # containerd and ctr: containers with their root on a mount
	conmon          # the monitor of podman's containers
	crun            # the runtime of podman's containers
	debian-archive-keyring # the keys of the packages for another kernel
	debootstrap     # a Debian root as a lower layer
	docker.io       # dockerd and docker: the same for docker
	e2fsprogs       # mkfs.ext4, lsattr, chattr
	fuse-overlayfs  # the program to compare with
	fuse3           # fusermount3, mount.fuse3
	gcc             # go test -race, and the linter of prose
	git             # the version of the build, and a program to run on a mount
	iproute2        # ip, which rootlesskit calls
	kmod            # modprobe
	libarchive-tools # bsdtar: packages of Alpine
	libc6-dev       # go test -race
	libcap2-bin     # setcap, getcap
	make            # make install, tested
	mandoc          # a check of the manual pages
	mkdocs          # the documents as a site
	mkdocs-material # its theme
	mount           # mount, umount, losetup
	pacman-package-manager # packages of Arch Linux
	passwd          # useradd: the plain user of the tests
	podman          # containers of root and of plain users, with their root on a mount
	procps          # ps, pgrep
	python3-pip     # pip, run against a copy of the system
	qemu-system-x86 # a machine for another kernel
	qemu-user-static # the program for arm64
	rootlesskit     # the namespaces of a plain user's dockerd and containerd
	rpm             # packages of Fedora
	runc            # the runtime of containerd's and docker's containers
	secilc          # a policy of SELinux for the machine
	skopeo          # copies of images out of a storage on the mount, and into it
	slirp4netns     # the network of those namespaces
	squashfs-tools  # mksquashfs: a lower whose file system has no UUID
	strace          # counting system calls
	systemd         # systemd-analyze: checks the example of a mount unit
	uidmap          # newuidmap, newgidmap
	util-linux      # unshare, setpriv, flock
	xz-utils        # modules of other kernels
	xfsprogs        # mkfs.xfs: an upper with reflinks
)
# Packages that some releases lack. From Debian 13 on the first two are not a part of docker.io.
optional=(docker-buildx docker-cli)
clients=(
	apptainer                   # from sid on
	containernetworking-plugins # networks of pods
	systemd-container           # systemd-nspawn
	umoci                       # images without a daemon
)
commands=(bsdtar btrfs buildah busybox chattr conmon containerd crun ctr debootstrap docker dockerd fuse-overlayfs
	fusermount3 gcc getcap getfacl getfattr git ip losetup make mandoc mkdocs mkfs.btrfs mkfs.ext4 mkfs.xfs mksquashfs
	mount newuidmap nsenter pacman pgrep podman qemu-aarch64-static qemu-system-x86_64 rootlesskit rpm runc secilc setcap setfacl setfattr setpriv
	skopeo slirp4netns strace systemd-analyze unshare useradd xz)
devices=(/dev/fuse /dev/net/tun)

case "${1-}" in
'') ;;
clients) optional+=("${clients[@]}") ;;
bench)
	optional=()
	packages=(btrfs-progs busybox-static conmon crun fio fuse-overlayfs git mount podman python3 util-linux xfsprogs)
	commands=(busybox conmon crun fio fuse-overlayfs git losetup mkfs.btrfs mkfs.xfs mount nsenter podman python3 unshare)
	devices=(/dev/fuse)
	;;
*)
	echo "usage: deps.sh [bench|clients]" >&2
	exit 1
	;;
esac

die() {
	echo "deps: $*" >&2
	exit 1
}

missing_packages() {
	local package
	for package in "${packages[@]}"; do
		if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
			echo "$package"
		fi
	done
}

install_packages() {
	local missing as_root=() package
	for package in "${optional[@]}"; do
		if apt-cache show "$package" >/dev/null 2>&1; then
			packages+=("$package")
		fi
	done
	mapfile -t missing < <(missing_packages)
	if [ "${#missing[@]}" -eq 0 ]; then
		return
	fi
	if [ "$(id -u)" -ne 0 ]; then
		sudo -n true 2>/dev/null || die "missing packages: ${missing[*]}; run as root, or install them"
		as_root=(sudo -n)
	fi
	echo "deps: installing ${missing[*]}"
	"${as_root[@]}" apt-get -q update </dev/null
	# The tests start the daemons that they need. The daemons of packages stay off until the next boot.
	local policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		# shellcheck disable=SC2064 # as_root is local
		trap "${as_root[*]} rm -f $policy" EXIT
		printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
		"${as_root[@]}" chmod 755 "$policy"
	fi
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -q -y --no-install-recommends install "${missing[@]}" </dev/null
}

check_commands() {
	local command missing=()
	for command in "${commands[@]}"; do
		PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("$command")
	done
	[ "${#missing[@]}" -eq 0 ] || die "missing commands: ${missing[*]}"
}

check_devices() {
	local device module
	for device in "${devices[@]}"; do
		module=${device##*/}
		if [ ! -e "$device" ] && [ "$(id -u)" -eq 0 ]; then
			modprobe "$module" 2>/dev/null || true
		fi
		[ -c "$device" ] || die "$device is missing: load the module $module, or give the container that device"
	done
	local restricted=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
	if [ -e "$restricted" ] && [ "$(cat "$restricted")" != 0 ]; then
		die "unprivileged user namespaces are off, the rootless tests cannot run:" \
			"sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	fi
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
	install_packages
fi
check_commands
check_devices
