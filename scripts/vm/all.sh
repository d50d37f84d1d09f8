#!/usr/bin/env bash
# Runs vm.sh on every kernel, and prints a table of the results. It fails if one of them fails.
# KERNELS= names some of them, KERNEL:TESTS one with a set of tests of its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=$(mktemp)
table=$(mktemp)
trap 'rm -f "$log" "$table"' EXIT
status=0
for kernel in ${KERNELS:-5.10 6.1 6.12 sid 6.1:selinux 6.12:verity}; do
	result=passed
	tests=${TESTS-}
	[ "${kernel%:*}" = "$kernel" ] || tests=${kernel#*:}
	KERNEL=${kernel%:*} TESTS=$tests "$here/vm.sh" 2>&1 | tee "$log" || { result=FAILED status=1; }
	sed -n "s/^vm:   \([a-z]*  *exit .*\)/$kernel  \1/p" "$log" >>"$table"
	echo "$kernel  $result: $(sed -n 's/^vm:   ready, kernel //p' "$log" | tail -n 1)" >>"$table"
done
echo
cat "$table"
exit "$status"
