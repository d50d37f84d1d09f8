#!/bin/sh
# whiteouts-for-the-kernel.sh GRAPHROOT: prepares a storage of podman for the kernel's overlayfs.
# The layers that podman unpacks for a mount program have files ".wh.NAME", which the kernel shows
# as files. The script replaces them by whiteouts of the kernel's form. It needs the packages attr
# and findutils, and no container may run. Root calls it as it is, a plain user by `podman unshare`.
set -eu
layers=${1:?usage: whiteouts-for-the-kernel.sh GRAPHROOT}/overlay
test -d "$layers/l"
# In a user namespace the kernel reads the xattrs of "user.".
class=trusted
if [ "$(awk '{ print $2; exit }' /proc/self/uid_map)" != 0 ]; then class=user; fi
if getfattr -R -h -P --absolute-names -m '^user\.containers\.override' "$layers" 2>/dev/null | grep -q .; then
	echo 'the owners and modes of this storage are xattrs (force_mask): the kernel cannot show it' >&2
	exit 1
fi
export class
# Directories that are opaque: .wh..wh..opq, or the xattr of fuse-overlayfs.
find "$layers" -path '*/diff/*' -type d -exec sh -euc '
	for dir; do
		if [ -e "$dir/.wh..wh..opq" ] || getfattr -h -n user.fuseoverlayfs.opaque -- "$dir" >/dev/null 2>&1; then
			setfattr -h -n "$class.overlay.opaque" -v y -- "$dir"
			time=$(stat -c %y -- "$dir")
			rm -f -- "$dir/.wh..wh..opq"
			touch -d "$time" -- "$dir"
		fi
		for name in $(getfattr -h -P --absolute-names -m "^user\.fuseoverlayfs\." -- "$dir" | sed -n "/^user/p"); do
			setfattr -h -x "$name" -- "$dir"
		done
	done' sh {} +
# Removed names.
find "$layers" -path '*/diff/*' -name '.wh.*' -exec sh -euc '
	for file; do
		name=${file##*/.wh.} dir=${file%/*}
		time=$(stat -c %y -- "$dir")
		case $name in
		.wh.*) ;; # records of aufs
		*)
			if [ -d "$dir/$name" ] && [ ! -L "$dir/$name" ]; then setfattr -n "$class.overlay.opaque" -v y -- "$dir/$name"
			elif [ ! -e "$dir/$name" ] && [ ! -L "$dir/$name" ]; then mknod "$dir/$name" c 0 0; fi ;;
		esac
		rm -- "$file" # last: an interrupted script can be repeated
		touch -d "$time" -- "$dir"
	done' sh {} +
# podman looks again at its next start.
rm -f "$layers/.has-mount-program"
