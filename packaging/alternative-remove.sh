#!/bin/sh
# Runs before the package is removed (Debian: "remove", rpm: 0 packages will be left), or replaced
# by another version, which keeps the alternative.
set -e

if [ "$1" = remove ] || [ "$1" = 0 ]; then
	if command -v update-alternatives >/dev/null; then
		update-alternatives --remove fuse-overlayfs /usr/bin/fuse-overlay
	fi
fi
