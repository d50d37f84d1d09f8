#!/usr/bin/env bash
# notes.sh TAG: prints what CHANGELOG.md has about a version, as the text of its release. It fails
# if the tag is not a version, or if the changelog has nothing about it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:?usage: notes.sh vX.Y.Z}
[[ $tag == v* ]] && packaging/version.sh deb "$tag" 19700101 >/dev/null || { echo "notes: $tag is not vX.Y.Z" >&2; exit 1; }
notes=$(awk -v heading="## [${tag#v}]" '
	/^## / { inside = index($0, heading) == 1; next }
	inside { print }' CHANGELOG.md)
[[ $notes == *[![:space:]]* ]] || { echo "notes: CHANGELOG.md has no section '## [${tag#v}]'" >&2; exit 1; }
printf '%s\n' "$notes"
