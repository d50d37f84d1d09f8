#!/usr/bin/env bash
# Prints the mirror from which debootstrap and apt get releases of Debian: that of this machine's
# apt, otherwise the one that debootstrap itself uses.
set -euo pipefail

mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
	awk '!/^[ \t]*#/ { for (i = 1; i <= NF; i++) if ($i ~ /:\/\/.*\/debian\/?$/ && !found++) print $i }')
if [ -z "$mirror" ]; then
	mirror=$(sed -n 's/^DEF_MIRROR="\(.*\)"$/\1/p' "$(command -v debootstrap)")
fi
if [ -z "$mirror" ]; then
	echo "mirror: neither apt nor debootstrap names a mirror of Debian" >&2
	exit 1
fi
echo "$mirror"
