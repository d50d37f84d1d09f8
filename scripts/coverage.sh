#!/usr/bin/env bash
# coverage.sh PROFILE: prints the statement coverage of the packages that have a floor, and fails
# below it. Only a package's own tests count: `go test -coverprofile` without -coverpkg.
set -euo pipefail

floor=85
packages=(copyup whiteout internal/ondisk inodecache fs/stack)

profile=${1:?usage: coverage.sh PROFILE}
module=$(awk '$1 == "module" {print $2; exit}' go.mod)

status=0
for package in "${packages[@]}"; do
	# A line is: FILE:FROM,TO STATEMENTS COUNT.
	percent=$(awk -v prefix="$module/$package/" '
		index($1, prefix) == 1 && substr($1, length(prefix) + 1) !~ /\// { all += $2; if ($3 > 0) hit += $2 }
		END { if (all > 0) printf "%.1f", 100 * hit / all; else print "none" }' "$profile")
	if [ "$percent" = none ]; then
		echo "coverage: $package: nothing measured" >&2
		status=1
	elif awk -v p="$percent" -v f="$floor" 'BEGIN { exit !(p <= f) }'; then
		echo "coverage: $package: $percent%, must be above $floor%" >&2
		status=1
	else
		echo "coverage: $package: $percent% (above $floor%)"
	fi
done
exit "$status"
