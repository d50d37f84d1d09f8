#!/usr/bin/env bash
# make demo: mounts an overlay with / as its lower layer and an empty temporary upper, and runs real
# programs that change it. Shows the merged tree and the upper, and checks that / has not changed.
# Leaves nothing behind. PROGRAM is the program that mounts.
set -euo pipefail

program=${PROGRAM:-bin/fuse-overlay}

die() {
	echo "demo: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || die "needs root: it changes files of root in a copy of /, by chroot (try: sudo make demo)"
command -v "$program" >/dev/null || die "$program is missing (make build)"
[ -c /dev/fuse ] || die "/dev/fuse is missing: load the module fuse, or give the container that device"

# A mount namespace of its own hides these mounts from all other processes.
if [ -z "${FUSE_OVERLAY_DEMO:-}" ]; then
	FUSE_OVERLAY_DEMO=1 exec unshare --mount --propagation private -- "$0"
fi

temp=$(mktemp -d "${TMPDIR:-/var/tmp}/fuse-overlay-demo.XXXXXX")
upper=$temp/upper work=$temp/work merged=$temp/merged

is_mounted() { grep -q " $merged " /proc/self/mounts; }

# daemons lists the processes that name the mount point in their command line.
daemons() {
	local file words
	for file in /proc/[0-9]*/cmdline; do
		mapfile -d '' -t words 2>/dev/null <"$file" || continue
		[[ "${words[*]}" != *"$merged"* ]] || echo "${words[*]}"
	done
}

unmount_all() {
	local point
	for point in "$merged/dev" "$merged/proc" "$merged"; do
		if grep -q " $point " /proc/self/mounts; then
			umount "$point" 2>/dev/null || umount -l "$point"
		fi
	done
	for _ in $(seq 50); do
		[ -n "$(daemons)" ] || return 0
		sleep 0.1
	done
	return 1
}

cleanup() {
	cd /
	unmount_all || true
	is_mounted || rm -rf --one-file-system "$temp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

step() { printf '\n==> %s\n' "$*"; }

inside() { chroot "$merged" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C "$@"; }

# The files that the demo changes.
edited=/etc/profile
[ -f "$edited" ] || edited=/etc/passwd
written=/fuse-overlay-demo.txt
removed=/usr/share/doc
victim=

# fingerprint prints the attributes, but for access times, of all objects of / that the demo changes
# in the overlay.
fingerprint() {
	local path
	for path in "$edited" "$written" "$removed" /usr/share/fuse-overlay-demo /var/lib/dpkg; do
		if [ -e "$path" ]; then
			find "$path" -printf '%p %y %m %U %G %s %i %T@ %C@ %l\n'
		else
			echo "$path: none"
		fi
	done
	sha256sum "$edited"
	if [ -n "$victim" ]; then
		dpkg -L "$victim" | xargs -d '\n' stat -c '%n %F %a %u %g %s %i %Y %Z'
	fi
}

# find_victim prints the name of a small installed package that no other package needs and whose
# removal runs no script.
find_victim() {
	local package tried=0
	while read -r package; do
		if compgen -G "/var/lib/dpkg/info/$package*.p*rm" >/dev/null; then
			continue
		fi
		[ $((tried += 1)) -le 40 ] || return 0
		if dpkg --dry-run --purge "$package" >/dev/null 2>&1; then
			echo "$package"
			return 0
		fi
	done < <(dpkg-query -W -f '${Installed-Size} ${Essential} ${Priority} ${db:Status-Status} ${Package}\n' |
		awk '$2 == "no" && $3 == "optional" && $4 == "installed" && $1 > 20 { print $1, $5 }' | sort -n | cut -d' ' -f2)
}

# make_package builds a Debian package in the merged tree.
make_package() {
	inside sh -euc '
		mkdir -p /tmp/package/DEBIAN /tmp/package/usr/share/fuse-overlay-demo
		echo "a file of a package" >/tmp/package/usr/share/fuse-overlay-demo/file
		printf "%s\n" "Package: fuse-overlay-demo" "Version: 1" "Architecture: all" "Maintainer: nobody <nobody@localhost>" \
			"Description: a package that is installed into an overlay" >/tmp/package/DEBIAN/control
		dpkg-deb --root-owner-group --build /tmp/package /tmp/fuse-overlay-demo.deb'
}

with_dpkg=
if command -v dpkg >/dev/null && command -v dpkg-deb >/dev/null && [ -d /var/lib/dpkg/info ]; then
	with_dpkg=yes
	victim=$(find_victim)
fi
fingerprint >"$temp/before"

step "Mount: lower /, an empty upper, all below $temp"
mkdir "$upper" "$work" "$merged"
echo "$program -o lowerdir=/,upperdir=$upper,workdir=$work $merged"
"$program" -o "lowerdir=/,upperdir=$upper,workdir=$work" "$merged"
is_mounted || die "the program succeeded, but nothing is mounted"
grep " $merged " /proc/self/mounts
mount --bind /dev "$merged/dev"
mount -t proc proc "$merged/proc"

step "Inside, by chroot: write $written, edit $edited"
inside sh -euc "echo 'written in the overlay' >$written; sed -i '1i # edited in the overlay' $edited; echo '# and appended to' >>$edited"
if [ -n "$with_dpkg" ]; then
	step "Inside, by chroot: build and install a package${victim:+, purge the package $victim}"
	make_package
	inside dpkg --no-triggers --install /tmp/fuse-overlay-demo.deb 2>&1 | grep -v '^(Reading database'
	if [ -n "$victim" ]; then
		inside dpkg --no-triggers --purge "$victim" 2>&1 | grep -v '^(Reading database'
	fi
fi
step "Inside, by chroot: rm -rf $removed ($(find "$removed" 2>/dev/null | wc -l) entries)"
inside rm -rf "$removed"

step "The merged tree shows"
inside cat "$written"
inside sed -n '1p;$p' "$edited"
if inside test -e "$removed"; then die "$removed is still there"; else echo "$removed: gone"; fi
if [ -n "$with_dpkg" ]; then
	inside dpkg-query -W -f '${Package} ${Version}: ${Status}\n' fuse-overlay-demo
	inside cat /usr/share/fuse-overlay-demo/file
	if [ -n "$victim" ]; then
		inside dpkg-query -W -f '${Status}\n' "$victim" >/dev/null 2>&1 && die "$victim is still installed"
		echo "$victim: purged"
	fi
fi

step "The upper holds $(find "$upper" -type f | wc -l) files, copied up or new, such as"
(cd "$upper" && find . -type f -not -name '.wh.*' -printf '%M %u:%g %8s %P\n' | sort -k4 | head -n 8)
echo "and for each name removed from a lower a device 0/0, such as"
(cd "$upper" && find -- * \( -type c -o -name '.wh.*' \) -exec stat -c '%A %t/%T %n' {} + | sort -k3 | head -n 8)

step "/ is as it was"
fingerprint >"$temp/after"
cmp "$temp/before" "$temp/after" || die "/ has changed"
echo "$(wc -l <"$temp/before") objects compared: types, modes, owners, sizes, inodes, times, and the content of $edited"
grep -c 'in the overlay' "$edited" >/dev/null && die "$edited was edited"
[ ! -e "$written" ] || die "$written is there"

step "Unmount"
unmount_all || die "the daemon is still there: $(daemons)"
is_mounted && die "$merged is still mounted"
[ -z "$(ls -A "$merged")" ] || die "$merged is not empty"
cleanup
[ ! -e "$temp" ] || die "$temp is still there"
echo "unmounted, the daemon has ended, $temp is removed"
