#!/usr/bin/env bash
# prose.sh VALE FOLDER|FILE...: checks the English of documents, comments, messages and the manual
# page. Words and the length of sentences are rules of Vale (.vale/). The width of lines is checked
# here: at most 100 characters. Tables, code blocks and lines without a space to break at may be
# wider. A folder stands for its own files, without those of its subfolders. LEVEL=suggestion also
# prints what is no error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

vale=${1:?usage: prose.sh VALE FOLDER|FILE...}
shift

files=()
for path in "$@"; do
	if [ ! -d "$path" ]; then
		[ -e "$path" ] || { echo "prose: $path: no such file or folder" >&2; exit 1; }
		files+=("$path")
		continue
	fi
	while IFS= read -r -d '' file; do
		files+=("${file#./}")
	done < <(find "$path" -maxdepth 1 -type f \( -name '*.md' -o -name '*.go' -o -name '*.sh' -o -name '*.1' \) -print0 | sort -z)
done
[ "${#files[@]}" -gt 0 ] || { echo "prose: nothing to check in: $*" >&2; exit 1; }

# width prints the lines of prose that are too wide: in code the comments that have a line of their
# own, in documents all but tables and code blocks. Continuation bytes of UTF-8 do not count.
width() {
	LC_ALL=C awk '
		FNR == 1 { block = 0; document = FILENAME ~ /\.(md|1)$/ }
		document && /^ *```/ { block = !block; next }
		document && (block || /^ *\|/) { next }
		!document && !/^[ \t]*(\/\/|#)/ { next }
		{ line = $0; gsub(/[\200-\277]/, "", line) }
		length(line) > 100 && line ~ /[^ \t#\/>*-]+[ \t]+[^ \t]/ {
			printf "%s:%d:101:Width:a line of %d characters, 100 are allowed\n", FILENAME, FNR, length(line)
			bad = 1
		}
		END { exit bad }' "$@"
}

# text prints the prose of a file in a form that Vale can read, line by line: the comments of
# scripts, Makefiles and YAML, the text of the manual page, the string literals of Go code. A
# literal that the next line continues (+) is the beginning of one text, any other is the end of
# one.
text() {
	case $1 in
	*.1) sed -E 's/^\.(B|I|BR|BI|IR|RB|SH) //; s/^\.[A-Z].*//; s/\\f.//g; s/\\(-|\(aq|&)/-/g' "$1" ;;
	*.go) perl -ne '
		my @texts = grep / /, /"((?:[^"\\]|\\.)*)"/g;
		print join(". ", @texts), @texts && !/\+\s*$/ ? "." : "", "\n"' "$1" ;;
	*) sed -E '/^[[:space:]]*#/!s/.*//; s/^[[:space:]]*#!?//' "$1" ;;
	esac
}

texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT
known=()
for file in "${files[@]}"; do
	case $file in
	*.md | *_test.go | e2e/*.go) known+=("$file") && continue ;;
	*.go) known+=("$file") ;;
	esac
	mkdir -p "$texts/$(dirname "$file")"
	text "$file" >"$texts/$file.txt"
done

vale() { "$vale" --config=.vale.ini --minAlertLevel="${LEVEL:-error}" --output=line "$@"; }

status=0
width "${files[@]}" || status=1
[ "${#known[@]}" -eq 0 ] || vale "${known[@]}" || status=1
vale "$texts" | sed "s|^$texts/||; s|\.txt:|:|" || status=1
exit "$status"
