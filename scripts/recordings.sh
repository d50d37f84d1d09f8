#!/usr/bin/env bash
# recordings.sh FREEZE: runs the demo and fuse-overlay try, and writes what a terminal then shows to
# docs/recordings. FREEZE is the program of that name, which draws text with colours as SVG. The
# images name a font of the reader and contain none, so they are small.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

freeze=$(realpath "${1:?usage: recordings.sh FREEZE}")
[ "$(id -u)" -eq 0 ] || { echo "recordings: needs root, as the demo does" >&2; exit 1; }
export PATH="$PWD/bin:$PATH" LC_ALL=C
images=$PWD/docs/recordings
mkdir -p "$images"

# A mount namespace of its own, in which /srv is a folder of this script.
if [ -z "${FUSE_OVERLAY_RECORDING:-}" ]; then
	FUSE_OVERLAY_RECORDING=1 exec unshare --mount --propagation private -- "$0" "$freeze"
fi
temp=$(mktemp -d /var/tmp/fuse-overlay-recordings.XXXXXX)
trap 'umount /srv; rm -rf --one-file-system "$temp"' EXIT
mount --bind "$temp" /srv
colour=$'\e[32m' plain=$'\e[0m'

# draw writes its input as an image.
draw() {
	expand >"$temp/text"
	"$freeze" "$temp/text" --language ansi --wrap 112 --font.family monospace --font.size 13 --padding 16 \
		--background '#171717' --output "$images/$1.svg" </dev/null
	sed -i 's/ clip-path="url(#terminalMask)"//' "$images/$1.svg" # freeze draws no such mask without corners
}

# typed prints a command as a user types it, and runs it.
typed() {
	printf '%s$ %s%s\n' "$colour" "$1" "$plain"
	(cd /srv/project && bash -c "$1" 2>&1) || true
}

{
	printf '%s# make demo%s\n' "$colour" "$plain"
	PROGRAM=fuse-overlay scripts/demo.sh 2>&1 | sed -E "s,^==> .*,$colour&$plain,"
} | draw demo

mkdir /srv/project
printf 'all:\n\techo built >prog\ninstall: all\n\tinstall -D prog /usr/local/bin/prog\n' >/srv/project/Makefile
echo 'a note' >/srv/project/notes
{
	typed 'ls'
	typed "fuse-overlay try --throw-away -- sh -c 'make install; rm notes; ls'"
	typed 'ls; ls /usr/local/bin/prog'
} | draw try
