#!/bin/sh
# The mount_program of storage.conf for a storage that root's podman has used with metacopy=on in
# mountopt. podman does not pass that option to mount programs.
exec /usr/local/bin/fuse-overlay -o metacopy=on "$@"
