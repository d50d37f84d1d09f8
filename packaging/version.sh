#!/usr/bin/env bash
# version.sh FORMAT VERSION DATE: prints the version of a package of FORMAT (deb, rpm, apk, arch)
# for a build. VERSION is what `git describe --tags --always --dirty` prints, DATE is YYYYMMDD. Each
# packaging system sorts the printed versions in the order of the commits:
#
#   v1.2.3-rc.1      before v1.2.3
#   v1.2.3-5-gHASH   five commits after v1.2.3
#   HASH, devel      a build without a tag: 0.0.0, then DATE
#
# A VERSION of another form is an error.
set -euo pipefail

[ $# -eq 3 ] || { echo "usage: version.sh deb|rpm|apk|arch VERSION DATE" >&2; exit 2; }
format=$1 version=$2 date=$3

die() {
	echo "version: $*" >&2
	exit 1
}

[[ $date =~ ^[0-9]{8}$ ]] || die "the date $date is not YYYYMMDD"
tag='^v([0-9]+\.[0-9]+\.[0-9]+)(-(alpha|beta|rc)\.([0-9]+))?(-([0-9]+)-g([0-9a-f]+))?(-dirty)?$'
if [[ $version =~ $tag ]]; then
	base=${BASH_REMATCH[1]} stage=${BASH_REMATCH[3]} number=${BASH_REMATCH[4]}
	commits=${BASH_REMATCH[6]} suffix=${BASH_REMATCH[6]:+${BASH_REMATCH[6]}.${BASH_REMATCH[7]}}
	patch=${commits:+_p$commits}
elif [[ $version =~ ^([0-9a-f]{4,40}|devel)(-dirty)?$ ]]; then
	base=0.0.0 stage='' number='' suffix=$date.${BASH_REMATCH[1]} patch=_git$date
else
	die "$version is neither vX.Y.Z, with -alpha.N, -beta.N or -rc.N, nor what git describe makes of a commit"
fi
if [[ $version == *-dirty ]]; then
	suffix=${suffix:+$suffix.}dirty
fi

case $format in
deb | rpm) echo "$base${stage:+~$stage.$number}${suffix:++$suffix}" ;;
arch) echo "$base${stage:+$stage$number}${suffix:++$suffix}" ;;
apk) echo "$base${stage:+_$stage$number}$patch-r0" ;; # apk takes no other letters
*) die "the format $format is not deb, rpm, apk or arch" ;;
esac
