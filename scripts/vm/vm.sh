#!/usr/bin/env bash
# Runs end-to-end tests in a virtual machine with a kernel of Debian: make vm KERNEL=6.1. It fails
# if the kernel cannot be had, if it does not boot, and if a test fails.
#
#	KERNEL     5.10, 6.1, 6.12 or sid: the kernel of bullseye, bookworm, trixie or sid; other: one
#	           of another generation than that of this machine
#	TESTS      packages of e2e, and for each a regular expression of tests: 'view=Rename cost'.
#	           quick is the set of `make test`; selinux and verity are tests that need this feature of
#	           the kernel, and fail without it; the default is all that fit: see choose_tests
#	WAY        kvm, uml (user-mode Linux) or tcg (emulation); otherwise the first of them that boots
#	VM_CACHE   the folder for root image and kernels, /var/cache/fuse-overlay-vm by default; they are
#	           made once: remove it to get newer ones
#	VM_MIRROR  the mirror of Debian: scripts/mirror.sh by default
#	VM_LIMIT   the time that the machine may take, in seconds
#
# This file chooses tests and prints results. root.sh makes the root image, kernel.sh gets the
# kernel, boot.sh boots it, guest.sh is what runs there.
set -euo pipefail

die() {
	echo "vm: $*" >&2
	exit 1
}

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$top/scripts/vm
KERNEL=${KERNEL-}
TESTS=${TESTS-}
WAY=${WAY-}
VM_CACHE=${VM_CACHE:-/var/cache/fuse-overlay-vm}
VM_MIRROR=${VM_MIRROR:-$("$top/scripts/mirror.sh")}
VM_LIMIT=${VM_LIMIT:-7200}
GO=${GO:-go}

# shellcheck source=scripts/vm/root.sh
. "$here/root.sh"
# shellcheck source=scripts/vm/kernel.sh
. "$here/kernel.sh"
# shellcheck source=scripts/vm/boot.sh
. "$here/boot.sh"

# The number of random operations in the machine, which has one slow CPU.
export FUSE_OVERLAY_SEQS=${FUSE_OVERLAY_SEQS:-20} FUSE_OVERLAY_FSX_OPS=${FUSE_OVERLAY_FSX_OPS:-50000}

# choose_tests expands the names of sets.
choose_tests() {
	case "$1" in
	'') echo view format differential rights lifetime cost command io=TestFsx ;;
	quick)
		echo 'command=^(TestWhatThisKernelHas|TestPassthroughNeedsTheKernel)$' 'view=^TestWalkInLowerInUpperInBoth$' \
			'rights=^(TestACLs|TestIDMapping)$' 'cost=^TestRequestsCreate$'
		;;
	selinux) echo 'rights=^TestSELinux$' ;;
	verity) echo 'format=^TestDigestsOfTheKernel$' ;;
	*) echo "$1" ;;
	esac
}

# choose_features has the machine and its tests use the feature of the kernel that a set needs. It
# sets lsm, the security module of the machine.
choose_features() {
	lsm=''
	case "$1" in
	selinux)
		lsm=selinux
		export FUSE_OVERLAY_SELINUX_POLICY=/mnt/policy
		;;
	verity) # Debian's user-mode Linux has no fs-verity
		export FUSE_OVERLAY_NEED_VERITY=1
		WAY=${WAY:-kvm tcg}
		;;
	esac
}

# other_kernel is the quickest kernel of another generation than that of this machine.
other_kernel() {
	case "$(uname -r)" in
	6.12.*) echo 6.1 ;;
	*) echo 6.12 ;;
	esac
}

# make_payload makes the disk with the program, the tests and the documents that they read.
make_payload() {
	local dir=$run/payload name suite packages=()
	mkdir -p "$dir/tests" "$dir/src"
	for suite in $suites; do
		name=${suite%%=*}
		[ -d "$top/e2e/$name" ] || die "e2e/$name does not exist"
		packages+=("./e2e/$name")
		case "$suite" in
		*=*) echo "$name ${suite#*=}" ;;
		*) echo "$name ." ;;
		esac >>"$dir/suites"
	done
	echo "vm: building the programs and the tests of $suites"
	(cd "$top" && CGO_ENABLED=0 "$GO" build -o "$dir/" ./cmd/... &&
		CGO_ENABLED=0 "$GO" test -c -o "$dir/tests/" "${packages[@]}")
	tar -C "$top" --exclude=./.git --exclude=./bin --exclude=./.tools -cf - . | tar -C "$dir/src" -xf -
	env | grep '^FUSE_OVERLAY_' >"$dir/environment" || true
	[ "$lsm" != selinux ] || secilc -c 31 -o "$dir/policy" -f /dev/null "$top/e2e/rights/testdata/selinux.cil"
	cp "$here/guest.sh" "$dir/guest.sh"
	make_image "$dir" "$run/payload.img" 8
	rm -rf "$dir"
}

# print_results prints what the machine has left on its last disk. It returns 1 if a test failed.
print_results() {
	mkdir -p "$run/results"
	tar -C "$run/results" -xf "$run/results.img" 2>/dev/null || die "no results; the console is in $run/console"
	cat "$run/results/summary"
	local log failed=0
	for log in "$run"/results/*.log; do
		if [ "$(cat "${log%.log}.code")" -ne 0 ]; then
			failed=1
			echo "vm: $(basename "$log" .log) on $KERNEL:"
			awk '/^=== RUN   Test[^\/]*$/ { text = "" } { text = text $0 "\n" } /^--- FAIL/ { printf "%s", text }
				/^--- / { text = "" } END { printf "%s", text }' "$log" | cut -c -1000 | head -n 200
		fi
	done
	return "$failed"
}

[ "$(id -u)" -eq 0 ] || die "needs root: it makes a root image and mounts"
[ "$KERNEL" != other ] || KERNEL=$(other_kernel)
suites=$(choose_tests "$TESTS")
choose_features "$TESTS"
mkdir -p "$VM_CACHE"
run=$(mktemp -d "$VM_CACHE/run-$KERNEL-XXXXXX")
make_root
make_payload
truncate -s 64M "$run/results.img"
boot_machine
print_results && grep -q '^vm: done' "$run/console" || die "tests failed on $KERNEL ($way); logs and console are in $run"
rm -rf "$run"
echo "vm: passed on $KERNEL ($way)"
