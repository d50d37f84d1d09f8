#!/usr/bin/env bash
# site.sh: builds the documents as a site, bin/site. It needs the manual pages of `make man`,
# mkdocs, mkdocs-material and mandoc. bin/pages has all pages under the paths that they have in the
# tree, so a link works in both places. A link to a page that does not exist is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Files of the tree that the documents link to.
linked=(LICENSE go.mod copyup/durable.go internal/conformance/{expected,pins}.txt)

pages=bin/pages
rm -rf bin/site "$pages"
mkdir -p "$pages/man"
cp -r --parents -- *.md docs "${linked[@]}" "$pages"
for file in docs/fuse-overlay.1 bin/man/*.1; do
	name=$(basename "$file" .1)
	{
		printf '# %s(1)\n\n' "$name"
		# Without the lines at the top and the bottom, and with headings below that of the page.
		mandoc -T html -O fragment "$file" |
			sed -E '/^<table class="(head|foot)">/,/^<\/table>/d; s,(</?)h2\b,\1h3,g; s,(</?)h1\b,\1h2,g'
	} >"$pages/man/$name.md"
done
mkdocs build --quiet --strict
