#!/usr/bin/env bash
# clients.sh [SUITE [FLAG...]]: runs the tests of container clients inside a Debian root of SUITE
# (trixie, sid, bookworm), as root. debootstrap makes that root once, and deps.sh installs the
# clients in it. A run uses a throwaway copy of the root, in namespaces and a cgroup of its own. A
# FLAG is one of the test binary, such as -test.run=TestDocker. Without flags the run prints a table
# of clients, and fails if the table has a gap. A skipped test fails each run.
#
#   FUSE_OVERLAY_CACHE=DIR  where the roots are kept between runs
#   PACKAGES='engines ...'  the packages below e2e whose tests run
#   MIRROR=URL              the mirror of Debian: that of mirror.sh by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/local/go/bin:/usr/sbin:/sbin"
repo=$PWD
cache=${FUSE_OVERLAY_CACHE:-/var/tmp/fuse-overlay-e2e-cache}
mirror=${MIRROR:-$(scripts/mirror.sh)}
read -ra packages <<<"${PACKAGES:-engines}"

die() {
	echo "clients: $*" >&2
	exit 1
}

# make_root makes the root of a suite, and installs packages again if their list has changed.
make_root() {
	local suite=$1 root=$2
	if [ ! -e "$root" ]; then
		echo "clients: making $root"
		rm -rf "$root.part"
		mkdir -p "$cache"
		debootstrap --variant=minbase "$suite" "$root.part" "$mirror" >"$root.log" 2>&1 || die "see $root.log"
		mv "$root.part" "$root"
	fi
	cmp -s scripts/deps.sh "$root/opt/deps.sh" && return
	echo "clients: installing packages in $root"
	cp scripts/deps.sh "$root/opt/deps.part"
	# A mirror may serve a state of sid that is older than its lists are valid.
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99clients"
	# The namespaces end what a package starts.
	unshare --mount --propagation private --pid --fork --kill-child bash -euc '
		mount -t proc proc "$0/proc"
		mount --bind /dev "$0/dev"
		cp /etc/resolv.conf "$0/etc/resolv.conf"
		chroot "$0" sh -ec "apt-get -q update; bash /opt/deps.part clients; apt-get clean"
	' "$root" >>"$root.log" 2>&1 </dev/null || die "see $root.log"
	mv "$root/opt/deps.part" "$root/opt/deps.sh"
}

# build compiles the programs and the tests.
build() {
	local package
	CGO_ENABLED=0 go build -trimpath -o "$1/" ./cmd/...
	for package in "${packages[@]}"; do
		CGO_ENABLED=0 go test -c -o "$1/$package.test" "./e2e/$package"
	done
}

# inside makes the mounts and runs the tests, as the first process of the namespaces.
inside() {
	local run=$1 dir package status=0
	shift
	GOROOT=$(go env GOROOT) GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE) GOPROXY=$(go env GOPROXY)
	export GOMODCACHE GOCACHE GOPROXY
	mount --bind "$run/root" "$run/root" # as pivot_root needs it
	cd "$run/root"
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mkdir sys/fs/cgroup/init # a cgroup with processes cannot give its children controllers
	echo 0 >sys/fs/cgroup/init/cgroup.procs
	mount -t devtmpfs devtmpfs dev
	mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
	mount -t tmpfs -o mode=1777 tmpfs dev/shm
	mount -t tmpfs -o mode=755 tmpfs run
	# Tests read documents, and build modules by Go.
	for dir in "$repo" "$cache" "$run" "$GOROOT" "$GOMODCACHE" "$GOCACHE"; do
		mkdir -p ".$dir"
		mount --bind "$dir" ".$dir"
	done
	mount -o remount,bind,ro ".$repo"
	ln -sf /proc/self/mounts etc/mtab # fusermount3 reads it
	cp --remove-destination /etc/resolv.conf etc/resolv.conf
	cp -L --remove-destination /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
	# In a chroot the kernel refuses user namespaces, and nsenter leaves the root.
	pivot_root . .
	umount -l .
	export PATH="$GOROOT/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	export FUSE_OVERLAY_CACHE=$cache FUSE_OVERLAY_BIN=$run/bin/fuse-overlay FUSE_OVERLAY_CLIENTS=1
	for package in "${packages[@]}"; do
		cd "$repo/e2e/$package"
		"$run/bin/$package.test" -test.v "$@" || status=1
	done
	return "$status"
}

# leftovers lists what the run has left: a cgroup, a mount, a loop device.
leftovers() {
	local run=$1 cgroup=$2 file
	find "$cgroup" -mindepth 1 -type d ! -path "$cgroup/init" -printf 'cgroup %p\n'
	grep -o " $run[^ ]*" /proc/self/mounts || true
	for file in /sys/block/loop*/loop/backing_file; do
		[ ! -e "$file" ] || grep "^$run" "$file" || true
	done
}

# clean ends the processes of the run and removes its files.
clean() {
	local run=$1 cgroup=$2
	if [ -d "$cgroup" ]; then
		echo 1 >"$cgroup/cgroup.kill"
		while grep -qx 'populated 1' "$cgroup/cgroup.events"; do sleep 0.1; done
		find "$cgroup" -depth -type d -exec rmdir {} \;
	fi
	rm -rf --one-file-system "$run"
}

# report prints the tests that failed or were skipped, and the table of clients. It fails if a test
# was skipped.
report() {
	local log=$1
	grep -E '^ *--- (FAIL|SKIP)' "$log" || true
	sed -n '/^clients:/,/^$/p' "$log"
	! grep -qE '^ *--- SKIP' "$log"
}

main() {
	local suite=${1:-trixie} root run home cgroup log left status=0
	[ $# -eq 0 ] || shift
	[ "$(id -u)" -eq 0 ] || die "needs root"
	if [ $# -eq 0 ]; then
		# The test installs packages of this machine's release in a root of Debian 12.
		set -- '-test.skip=^TestDebianRoot$' -test.timeout=90m
		export FUSE_OVERLAY_TRIED=1
	fi
	root=$cache/clients-$suite
	log=$repo/bin/clients-$suite.log
	make_root "$suite" "$root"
	home=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
	[ -n "$home" ] || die "no cgroup file system of version 2"
	cgroup=$home/fuse-overlay-clients-$$
	run=$(mktemp -d "$cache/run.XXXXXX")
	# shellcheck disable=SC2064 # the values of now
	trap "clean '$run' '$cgroup'" EXIT
	chmod 755 "$run"
	mkdir -p bin "$run/bin"
	build "$run/bin"
	cp -a --reflink=auto "$root" "$run/root"
	mkdir "$cgroup"
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs"
		exec unshare --mount --propagation private --pid --ipc --cgroup --fork --kill-child \
			"$repo/scripts/clients.sh" inside "$run" "$@"
	) >"$log" 2>&1 </dev/null || status=1
	report "$log" || status=1
	left=$(leftovers "$run" "$cgroup")
	if [ -n "$left" ]; then
		echo "clients: left behind: $left" >&2
		status=1
	fi
	[ "$status" -eq 0 ] || die "FAILED, see $log"
	echo "clients: passed on $suite"
}

if [ "${1-}" = inside ]; then
	shift
	inside "$@"
else
	main "$@"
fi
