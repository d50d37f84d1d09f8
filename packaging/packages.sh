#!/usr/bin/env bash
# packages.sh FOLDER ARCH...: builds the programs for each ARCH (amd64, arm64), and writes packages,
# an archive, SBOMs and their checksums to FOLDER. `make packages` calls it. Two builds of a commit
# write the same bytes, whatever the folders, the user and the time are: reproduce.sh checks that.
#
#   VERSION, GO, NFPM, SBOM  set by make: the version of the build, and the tools
#   GENERATE                 a fuse-overlay-commands for this machine, which writes the manual pages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C TZ=UTC0

: "${VERSION:?}" "${GO:?}" "${NFPM:?}" "${SBOM:?}" "${GENERATE:?}"
[ $# -ge 2 ] || { echo "usage: packages.sh FOLDER ARCH..." >&2; exit 2; }
out=$1
shift
if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || { echo "packages: set SOURCE_DATE_EPOCH, outside of git" >&2; exit 1; }
fi
export SOURCE_DATE_EPOCH
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)
name=fuse-overlay_${VERSION#v}
summary='overlay file system in user space'
text='fuse-overlay shows several directories as one tree, and stores all changes in
a directory of their own. It reads and writes the format of the kernel'"'"'s
overlayfs. Plain users can mount it: it is for rootless containers, build
sandboxes and CI jobs.'
work=$out/.work

# place installs the programs of one ARCH into a folder, with documents beside what `make install`
# has: place FOLDER PREFIX VARIABLE=VALUE...
place() {
	local dir=$1 prefix=$2 doc=$1$2/share/doc/fuse-overlay
	shift 2
	make -s install DESTDIR="$dir" PREFIX="$prefix" PROGRAM="$work/$arch/fuse-overlay" "$@"
	install -d "$doc/docs"
	install -m 0644 LICENSE README.md SECURITY.md CHANGELOG.md "$work/licenses-of-modules" "$doc"
	cp -r --no-preserve=all docs/*.md docs/design docs/examples "$doc/docs"
	chmod 755 "$doc"/docs/examples/*.sh
}

# date_files gives files of a folder the time of the commit.
date_files() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

# package FORMAT EXTENSION RELEASE VARIABLE=VALUE...: one package.
package() {
	local format=$1 extension=$2 release=$3 version stage=$work/$arch/$1 description=$summary
	shift 3
	version=$(packaging/version.sh "$format" "$VERSION" "$date")
	place "$stage" /usr "$@"
	gzip -9n "$stage"/usr/share/man/man1/*.1 "$stage"/usr/share/doc/fuse-overlay/licenses-of-modules
	case $format in # the other formats have one line
	deb) description=$summary$'\n'$text ;;
	rpm) description=$text ;;
	esac
	if [ "$format" = deb ]; then # names that Debian's policy requires
		gzip -9n "$stage"/usr/share/doc/fuse-overlay/CHANGELOG.md
		mv "$stage"/usr/share/doc/fuse-overlay/{CHANGELOG.md.gz,changelog.gz}
		rm "$stage"/usr/share/doc/fuse-overlay/LICENSE
		install -m 0644 packaging/copyright "$stage"/usr/share/doc/fuse-overlay
	fi
	date_files "$stage"
	STAGE=$stage ARCH=$arch DESCRIPTION=$description PACKAGE_VERSION=$version RELEASE=$release \
		"$NFPM" package --config packaging/nfpm.yaml --packager "${format/%arch/archlinux}" \
		--target "$out/${name}_$arch.$extension"
}

# archive writes a tar of a folder that can be unpacked to any PREFIX. It has no mount helper:
# mount(8) looks in /sbin only.
archive() {
	local top=${name}_$arch
	place "$work/$arch/$top" '' HELPERDIR=/sbin
	rm -r "$work/$arch/$top/sbin"
	install -D -m 0644 -t "$work/$arch/$top/share/doc/fuse-overlay/sbom" "$out/${name}_$arch".*.cdx.json
	date_files "$work/$arch/$top"
	tar --sort=name --owner=0 --group=0 --numeric-owner --format=posix \
		--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
		-C "$work/$arch" -c "$top" | gzip -9n >"$out/$top.tar.gz"
}

# list_modules writes an SBOM (CycloneDX) of a program: each module that the file links.
list_modules() {
	local program=$1 log=$work/sbom.log
	# GOPROXY: the version of this module is in no proxy before it is released.
	# GOSUMDB: go.sum has verified the modules at the build. Without a proxy the database cannot be
	# reached, and modules that it has not verified before would be listed without a license.
	GOPROXY=off GOSUMDB=off GOARCH=$arch CGO_ENABLED=0 "$SBOM" bin -json -noserial -notimestamp -std -licenses -version "$VERSION" \
		-output "$out/${name}_$arch.$program.cdx.json" "$work/$arch/$program" 2>"$log" || { cat "$log" >&2; exit 1; }
}

rm -rf "$out"
mkdir -p "$work"
packaging/licenses.sh >"$work/licenses-of-modules"
for arch in "$@"; do
	mkdir "$work/$arch"
	GOARCH=$arch make -s build PROGRAM="$work/$arch/fuse-overlay" LDFLAGS='-s -w'
	list_modules fuse-overlay
	list_modules fuse-overlay-commands
	package deb deb 1 HELPERDIR=/usr/sbin ZSHDIR=/usr/share/zsh/vendor-completions
	package rpm rpm 1 HELPERDIR=/usr/sbin
	package apk apk '' HELPERDIR=/sbin
	package arch pkg.tar.zst 1 HELPERDIR=/usr/bin # Arch Linux has no other folder of programs
	archive
done
rm -r "$work"
(cd "$out" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
