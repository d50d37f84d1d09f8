#!/bin/sh
# Runs after the package is installed, and in Debian also when another package has installed or
# removed /usr/bin/fuse-overlayfs. If no file has that name, it becomes an alternative that leads to
# fuse-overlay. A file of that name is the package fuse-overlayfs, which stays as it is.
set -e

name=/usr/bin/fuse-overlayfs
if [ -e "$name" ] && [ ! -L "$name" ]; then
	exit 0
fi
if command -v update-alternatives >/dev/null; then
	update-alternatives --install "$name" fuse-overlayfs /usr/bin/fuse-overlay 50
fi
