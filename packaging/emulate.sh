#!/usr/bin/env bash
# emulate.sh COMMAND...: runs a command on a machine that can execute programs for arm64, by
# qemu-user (package qemu-user-static). The kernel gets a rule for such programs, unless it has one,
# until the command ends. Needs root.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: emulate.sh COMMAND..." >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "emulate: needs root" >&2; exit 1; }
emulator=$(command -v qemu-aarch64-static) || { echo "emulate: install qemu-user-static" >&2; exit 1; }

if [ "${EMULATE_APART-}" != 1 ]; then
	EMULATE_APART=1 exec unshare --mount --propagation private "$0" "$@"
fi
unset EMULATE_APART
rules=/proc/sys/fs/binfmt_misc
if [ ! -e "$rules/register" ]; then
	mount -t binfmt_misc binfmt_misc "$rules"
fi
if ! grep -qs '^enabled' "$rules/qemu-aarch64"; then
	name=fuse-overlay-arm64-$$
	# The first 20 bytes of an ELF file for arm64, their mask, and F: the kernel opens the emulator
	# now, so that programs run in every mount namespace and root.
	magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
	mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
	printf '%s' ":$name:M::$magic:$mask:$emulator:F" >"$rules/register"
	trap 'echo -1 >"$rules/$name"' EXIT
fi
"$@"
