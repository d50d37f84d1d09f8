#!/usr/bin/env bash
# reproduce.sh: builds the packages of HEAD twice, and fails unless all files are the same, byte by
# byte. The second build differs in what a build must not depend on: the path, the time zone, the
# umask, the language, the host name, the number of threads, and an empty cache of Go. ARCHES is as
# for `make packages`. Uncommitted changes are not built. The packages are in bin/packages then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repo=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# clone makes a copy of HEAD that uses this tree's tools, which are not built twice.
clone() {
	mkdir -p "$1"
	git clone -q --no-local "$repo" "$1"
	git -C "$1" checkout -q --detach "$(git rev-parse HEAD)"
	ln -s "$repo/.tools" "$1/.tools"
}

first=$dir/one second=$dir/another/folder/two
clone "$first"
clone "$second"
mkdir -p .tools
make -s -C "$first" packages ${ARCHES:+ARCHES="$ARCHES"} >/dev/null
(
	umask 077
	export TZ=Asia/Kathmandu LC_ALL=C.UTF-8 GOMAXPROCS=1 GOCACHE=$dir/cache
	# A host name of its own needs a namespace; without the right to it the name stays.
	apart=()
	! unshare --uts true 2>/dev/null || apart=(unshare --uts sh -c 'hostname other && exec "$@"' sh)
	"${apart[@]}" make -s -C "$second" packages ${ARCHES:+ARCHES="$ARCHES"} >/dev/null
)
if ! diff <(cd "$first/bin/packages" && sha256sum -- *) <(cd "$second/bin/packages" && sha256sum -- *); then
	echo "reproduce: the builds differ" >&2
	exit 1
fi
mkdir -p bin
rm -rf bin/packages
cp -r "$first/bin/packages" bin/packages
cat bin/packages/SHA256SUMS
echo "reproduce: two builds, one hash for each of $(wc -l <bin/packages/SHA256SUMS) files"
