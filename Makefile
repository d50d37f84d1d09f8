# fuse-overlay: build, show, check, measure, install. `make help` lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The folder of Go's own archive, for a PATH without it, such as root's on many machines.
GO      ?= $(or $(shell command -v go),/usr/local/go/bin/go)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
LIBEXECDIR ?= $(PREFIX)/libexec/fuse-overlay
# The folders of completions: of the packages bash-completion, zsh and fish.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
DESTDIR ?=
# The folder in which mount(8) looks for the helper of `mount -t fuse-overlay`, for any PREFIX.
HELPERDIR ?= /sbin
# ALTERNATIVE=1 also installs the name fuse-overlayfs, which podman, docker, containerd and others
# look for.
ALTERNATIVE ?=

PROGRAM  := bin/fuse-overlay
# The program of all commands but mount. PROGRAM executes it, from its own folder or LIBEXECDIR.
COMMANDS := $(PROGRAM)-commands
MANPAGE  := docs/fuse-overlay.1
# The commands that have a page of the manual, which COMMANDS writes.
PAGES    := $(patsubst %,fuse-overlay-%.1,apply check completion diff list merge mount \
	stats try umount upgrade vacuum version)
# The program that writes pages and completions: one for this machine, if COMMANDS is for another.
GENERATE ?= $(COMMANDS)
MODULE   := github.com/fuse-overlay/fuse-overlay
# LDFLAGS='-s -w' leaves the debugging information out.
LDFLAGS  ?=
GOBUILD  := $(GO) build -trimpath -ldflags '$(LDFLAGS) -X $(MODULE)/internal/version.linked=$(VERSION)'

LINT_VERSION := v2.15.0
LINT         := .tools/golangci-lint-$(LINT_VERSION)
VALE_VERSION := v3.21.0
VALE         := .tools/vale-$(VALE_VERSION)
NFPM_VERSION := v2.48.0
NFPM         := .tools/nfpm-$(NFPM_VERSION)
SBOM_VERSION := v1.10.0
SBOM         := .tools/cyclonedx-gomod-$(SBOM_VERSION)

# What `make packages` builds for.
ARCHES ?= amd64 arm64

FREEZE_VERSION := v0.2.2
FREEZE         := .tools/freeze-$(FREEZE_VERSION)

# Folders (without their subfolders) and files whose English `make lint` checks.
DIRS ?= .ci/run .github .golangci.yml Makefile \
	$(wildcard *.md docs/examples/*.* docs/examples/kubernetes/*) docs/examples/fstab \
	$(shell find * -name '*.go' -o -name '*.sh' -o -name '*.md' | grep / | xargs -n 1 dirname | sort -u)

# All packages but the end-to-end tests, which need a built program and the right to mount.
UNIT     = $$($(GO) list ./... | grep -v '/e2e\(/\|$$\)')
PROFILE := bin/coverage.out

E2E_TIMEOUT ?= 40m
# One package at a time: some tests count what the whole machine has.
E2E_TEST     = $(GO) test -p 1 -count=1 -timeout $(E2E_TIMEOUT)
# E2E_RACE=1 runs the end-to-end tests on a daemon built with the race detector (needs gcc).
E2E_RACE    ?=
# The tests of `make test-arm64`. The emulator has no passthrough: tests with each mode of I/O fail.
ARM64_TESTS ?= ^Test(Differential|EveryKindIs.*|RenameFlags|Stats|Umount)$$
E2E_PROGRAM  = $(PROGRAM)$(if $(E2E_RACE),-race)
# The number of operations of `make fsx`, and of sequences of each test of `make differential`.
FSX_OPS     ?= 10000000
SEQS        ?= 2000
# The number of power cuts of `make cuts`, for each scenario on each file system.
CUTS        ?= 1000
# The kills of `make kills` in each kind of mount, and the time of `make load`.
KILLS       ?= 500
TAKEOVERS   ?= 200
SOAK        ?= 1h
# How many times as many attacks `make attacks` makes, and the names of `make shortage`.
ATTACKS     ?= 100
NAMES       ?= 1000000
# The time of each fuzz test of `make fuzz`.
FUZZTIME    ?= 10m

.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: help build man completions packages site recordings race-build demo test deps vet lint prose unit e2e races soak attacks fsx differential cuts kills takeovers load shortage fuzz appends vm other-kernel test-kernels \
	test-packages test-reproducible test-arm64 test-clients test-conformance coverage bench bench-deps install uninstall clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

build: ## build bin/fuse-overlay and bin/fuse-overlay-commands, static binaries
	@mkdir -p bin
	CGO_ENABLED=0 $(GOBUILD) -o $(PROGRAM) ./cmd/fuse-overlay
	CGO_ENABLED=0 $(GOBUILD) -o $(COMMANDS) ./cmd/fuse-overlay-commands

# The date of the pages is that of the last commit, so that two builds are the same.
man: build ## write the manual pages of the commands to bin/man
	@rm -rf bin/man && mkdir -p bin/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH-$$(git log -1 --format=%ct 2>/dev/null || true)} $(GENERATE) man bin/man

completions: build ## write the completions of bash, zsh and fish to bin/completions
	@rm -rf bin/completions && mkdir -p bin/completions
	for shell in bash zsh fish; do $(GENERATE) completion $$shell >bin/completions/$$shell; done

site: man ## write the documents as a site with search to bin/site
	scripts/site.sh

packages: build $(NFPM) $(SBOM) ## packages of Debian, Fedora, Alpine and Arch, archives, SBOMs: bin/packages (ARCHES=)
	VERSION=$(VERSION) GO=$(GO) NFPM=$(CURDIR)/$(NFPM) SBOM=$(CURDIR)/$(SBOM) GENERATE=$(CURDIR)/$(COMMANDS) \
		packaging/packages.sh bin/packages $(ARCHES)

race-build:
	@mkdir -p bin
	CGO_ENABLED=1 $(GOBUILD) -race -o $(PROGRAM)-race ./cmd/fuse-overlay

demo: build ## mount a throwaway copy of this machine's / and change it (root)
	PROGRAM=$(CURDIR)/$(PROGRAM) scripts/demo.sh

# Packages for other CPUs are built and tested by the workflow of releases.
test: ARCHES = $(shell $(GO) env GOARCH)
test: deps vet lint site unit e2e races test-packages other-kernel ## all that CI runs, with its packages (root, network, three quarters of an hour)
	@echo
	@grep -hE '^(ok|FAIL|---)' bin/unit.log bin/e2e.log bin/races.log bin/test-packages.log
	@echo 'All tests passed.'

deps: ## install the packages that the tests use (Debian, Ubuntu)
	scripts/deps.sh

vet:
	$(GO) vet ./...

lint: $(LINT) prose ## golangci-lint, and the linter of prose
	$(LINT) run ./...

prose: $(VALE) ## check the English of documents and comments; DIRS='fs docs/design' for some folders
	@scripts/prose.sh $(VALE) $(DIRS)

$(LINT):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv .tools/golangci-lint $@

# Needs gcc: Vale parses code by tree-sitter.
$(VALE):
	GOBIN=$(CURDIR)/.tools CGO_ENABLED=1 $(GO) install github.com/vale-cli/vale/v3/cmd/vale@$(VALE_VERSION)
	mv .tools/vale $@

recordings: build $(FREEZE) ## draw what make demo and fuse-overlay try print: docs/recordings (root)
	scripts/recordings.sh $(FREEZE)

$(FREEZE):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/charmbracelet/freeze@$(FREEZE_VERSION)
	mv .tools/freeze $@

$(NFPM):
	GOBIN=$(CURDIR)/.tools CGO_ENABLED=0 $(GO) install -trimpath github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv .tools/nfpm $@

# Its own hash is in each SBOM, so the build is the same in every folder.
$(SBOM):
	GOBIN=$(CURDIR)/.tools CGO_ENABLED=0 $(GO) install -trimpath \
		github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(SBOM_VERSION)
	mv .tools/cyclonedx-gomod $@

unit: ## unit tests with the race detector, with ranks of locks, and the coverage floor
	@mkdir -p bin
	$(GO) test -race -covermode=atomic -coverprofile=$(PROFILE) $(UNIT) 2>&1 | tee bin/unit.log
	$(GO) test -count=1 -tags lockrank ./internal/lock ./inodecache ./fs/conn/... ./fs 2>&1 | tee -a bin/unit.log
	CGO_ENABLED=0 $(GO) test -count=1 ./internal/sandbox ./internal/host 2>&1 | tee -a bin/unit.log
	$(GO) test -count=1 -v -run Allocates ./fs 2>&1 | tee -a bin/unit.log | grep -E -e '--- PASS|FAIL|_test.go'
	scripts/coverage.sh $(PROFILE)

e2e: $(if $(E2E_RACE),race-build,build) ## end-to-end tests on real mounts
	FUSE_OVERLAY_BIN=$(CURDIR)/$(E2E_PROGRAM) $(E2E_TEST) ./e2e/... 2>&1 | tee bin/e2e.log

races: race-build ## the end-to-end tests that call harness.Raced, on a daemon with the race detector
	FUSE_OVERLAY_RACED=1 FUSE_OVERLAY_SEQS=12 FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM)-race $(E2E_TEST) ./e2e/... 2>&1 | tee bin/races.log

soak: fsx differential cuts kills takeovers load attacks shortage ## the long forms of tests, one after the other (root, hours)

fsx: build ## ten million random operations on the data of files (FSX_OPS=)
	FUSE_OVERLAY_FSX_OPS=$(FSX_OPS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) $(GO) test -count=1 -timeout 0 -v -run '^TestFsx' ./e2e/io/

differential: build ## random operations here and on the kernel's overlayfs, in 2,000 sequences each (root, SEQS=)
	FUSE_OVERLAY_SEQS=$(SEQS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) \
		$(GO) test -count=1 -timeout 0 -v -run '^Test(Differential|DifferentialOptions|DifferentialOptionSets)$$' ./e2e/differential/

cuts: build ## power cuts of a disk, a thousand in each scenario (root, hours, CUTS=)
	FUSE_OVERLAY_CUTS=$(CUTS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) \
		$(GO) test -count=1 -timeout 0 -v -run '^TestPowerCutOfADisk$$' ./e2e/faults/

attacks: build ## a hundred times as many attacks by hostile layers, users and processes (root, an hour, ATTACKS=)
	FUSE_OVERLAY_ATTACKS=$(ATTACKS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) \
		$(GO) test -v -count=1 -timeout 0 ./e2e/attacks/ 2>&1 | tee bin/attacks.log

shortage: build ## a million names are walked in a mount whose daemon has 48 MiB (root, NAMES=)
	FUSE_OVERLAY_NAMES=$(NAMES) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) \
		$(GO) test -count=1 -timeout 1h -v -run '^TestLittleMemory$$' ./e2e/faults/

kills: build ## SIGKILLs of the daemon under load, in all kinds of mounts (root, an hour, KILLS=)
	FUSE_OVERLAY_KILLS=$(KILLS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) $(GO) test -count=1 -timeout 0 -v -run '^TestKills$$' ./e2e/kills/

takeovers: build ## SIGKILLs of the daemon of mounts that another process takes over (root, TAKEOVERS=)
	FUSE_OVERLAY_TAKEOVERS=$(TAKEOVERS) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) $(GO) test -count=1 -timeout 0 -v ./e2e/supervise/

load: build ## builds, packages, deletions, renames, listings, mounts: what does the daemon use? (root, an hour, SOAK=)
	FUSE_OVERLAY_SOAK=$(SOAK) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./e2e/soak/

fuzz: ## each fuzz test for FUZZTIME (root, two hours by default)
	grep -r '^func Fuzz' --include='*_test.go' . | sed -E 's,/[^/]*:func (Fuzz[A-Za-z]*).*, \1,' | sort | while read -r dir name; do \
		echo "$$dir $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name$$" -fuzzminimizetime 10x -fuzztime $(FUZZTIME) "$$dir"; done

appends: build ## appends to 10,000 mapped files in each mode and kind of mount (root, an hour, APPENDS=)
	FUSE_OVERLAY_APPEND_FILES=$(or $(APPENDS),10000) FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) \
		$(GO) test -v -count=1 -timeout 4h -run '^TestAppendsToMappedFiles$$' ./e2e/io/ 2>&1 | tee bin/appends.log

vm: ## end-to-end tests on another kernel: KERNEL=5.10, 6.1, 6.12 or sid; TESTS= for some (root)
	@GO=$(GO) KERNEL=$(KERNEL) TESTS='$(TESTS)' WAY=$(WAY) scripts/vm/vm.sh

other-kernel: ## a few end-to-end tests on a kernel of another generation than that of this machine (root)
	@GO=$(GO) KERNEL=other TESTS=quick VM_LIMIT=600 scripts/vm/vm.sh

test-kernels: ## the same for all kernels, and a table of the results (root, hours)
	@GO=$(GO) TESTS='$(TESTS)' WAY=$(WAY) scripts/vm/all.sh

test-packages: packages ## install, use and remove the packages of this machine's CPU (root, network)
	FUSE_OVERLAY_PACKAGES=$(CURDIR)/bin/packages FUSE_OVERLAY_BIN=$(CURDIR)/$(PROGRAM) $(E2E_TEST) ./e2e/packages \
		2>&1 | tee bin/test-packages.log

test-reproducible: ## build the packages of HEAD in two folders, and compare them (ARCHES=)
	ARCHES='$(ARCHES)' packaging/reproduce.sh

test-arm64: ## end-to-end tests of the program for arm64, emulated by qemu-user (root)
	@mkdir -p bin/arm64
	GOARCH=arm64 $(MAKE) build PROGRAM=bin/arm64/fuse-overlay
	FUSE_OVERLAY_BIN=$(CURDIR)/bin/arm64/fuse-overlay FUSE_OVERLAY_SEQS=3 packaging/emulate.sh \
		$(E2E_TEST) -run '$(ARM64_TESTS)' $(addprefix ./e2e/,differential view commands) 2>&1 | tee bin/test-arm64.log

test-clients: ## the tests of container clients in a Debian root of another release (root, an hour, SUITE=trixie)
	scripts/clients.sh $(or $(SUITE),trixie)

test-conformance: build ## the suites of others (root, hours): SUITES=FOLDER, and SUITE= MODE= CASE= for a part
	$(GO) run ./internal/conformance -program $(PROGRAM) -suites '$(SUITES)' \
		-suite '$(SUITE)' -mode '$(MODE)' -case '$(CASE)' $(CONFORMANCE)

coverage: unit ## unit tests, and the lines that they do not reach: bin/coverage.html
	$(GO) tool cover -func=$(PROFILE) | tail -n 1
	$(GO) tool cover -html=$(PROFILE) -o bin/coverage.html

bench: build ## compare with the kernel's overlayfs and others; BENCH='-quick' for flags
	$(GO) run ./bench -program $(PROGRAM) $(BENCH)

bench-deps: ## install the packages that the bench uses (Debian, Ubuntu)
	scripts/deps.sh bench

# Built only if it is missing: make install runs as root, often without Go in PATH. The built
# program itself writes the pages and the completions.
$(PROGRAM) $(COMMANDS):
	$(MAKE) build

# The link of the mount helper is absolute, because /sbin may be a link itself.
install: $(PROGRAM) $(COMMANDS) ## install below PREFIX; ALTERNATIVE=1 adds the name fuse-overlayfs
	$(MAKE) -s -o build man completions
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(BINDIR)/fuse-overlay
	install -D -m 0755 $(COMMANDS) $(DESTDIR)$(LIBEXECDIR)/fuse-overlay-commands
	install -D -m 0644 $(MANPAGE) $(DESTDIR)$(MANDIR)/man1/fuse-overlay.1
	install -m 0644 $(addprefix bin/man/,$(PAGES)) $(DESTDIR)$(MANDIR)/man1
	install -D -m 0644 bin/completions/bash $(DESTDIR)$(BASHDIR)/fuse-overlay
	install -D -m 0644 bin/completions/zsh $(DESTDIR)$(ZSHDIR)/_fuse-overlay
	install -D -m 0644 bin/completions/fish $(DESTDIR)$(FISHDIR)/fuse-overlay.fish
	install -d -m 0755 $(DESTDIR)$(HELPERDIR)
	ln -sfn $(BINDIR)/fuse-overlay $(DESTDIR)$(HELPERDIR)/mount.fuse-overlay
ifneq ($(ALTERNATIVE),)
	ln -sfn fuse-overlay $(DESTDIR)$(BINDIR)/fuse-overlayfs
endif

# Names that may belong to other programs are removed only if they are links to this one.
uninstall: ## remove what install has installed
	@remove() { if [ "$$(readlink "$$1")" = "$$2" ]; then rm -f "$$1"; fi; }; set -x; \
	remove $(DESTDIR)$(BINDIR)/fuse-overlayfs fuse-overlay; \
	remove $(DESTDIR)$(HELPERDIR)/mount.fuse-overlay $(BINDIR)/fuse-overlay; \
	rm -f $(DESTDIR)$(BINDIR)/fuse-overlay $(addprefix $(DESTDIR)$(MANDIR)/man1/,fuse-overlay.1 $(PAGES)); \
	rm -f $(DESTDIR)$(BASHDIR)/fuse-overlay $(DESTDIR)$(ZSHDIR)/_fuse-overlay $(DESTDIR)$(FISHDIR)/fuse-overlay.fish; \
	rm -f $(DESTDIR)$(LIBEXECDIR)/fuse-overlay-commands; \
	rmdir $(DESTDIR)$(LIBEXECDIR) 2>/dev/null || true

clean: ## remove what was built
	rm -rf bin
