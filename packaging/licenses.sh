#!/usr/bin/env bash
# licenses.sh: prints the licenses of the modules that the two programs link, and of Go's standard
# library. The licenses require that whoever gets the programs gets these texts too. Each module has
# one text at least, or is in the list below, otherwise it is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C GO=${GO:-go}

# The modules below a folder of their repository, whose license is in the repository's root and so
# not in the module. Theirs is that of fuse-overlay.
elsewhere=(github.com/rootless-containers/proto/go-proto)

# print_texts prints the files of a module that state its license and its copyright.
print_texts() {
	local name=$1 dir=$2 file files
	mapfile -t files < <(find "$dir" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\|copyright\)[^/]*' | sort)
	if [ "${#files[@]}" -eq 0 ] && [[ " ${elsewhere[*]} " == *" ${name% *} "* ]]; then
		printf '==== %s: Apache License 2.0, see the license of fuse-overlay ====\n\n' "$name"
		return
	fi
	[ "${#files[@]}" -gt 0 ] || { echo "licenses: $name has none" >&2; exit 1; }
	for file in "${files[@]}"; do
		printf '==== %s: %s ====\n\n' "$name" "${file##*/}"
		cat "$file"
		echo
	done
}

print_texts "Go $("$GO" env GOVERSION)" "$("$GO" env GOROOT)"
"$GO" mod download # the texts of modules that a build cache has compiled already
modules=$(CGO_ENABLED=0 "$GO" list -deps -f '{{with .Module}}{{if .Version}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/... | sort -u)
while read -r path version dir; do
	print_texts "$path $version" "$dir"
done <<<"$modules"
