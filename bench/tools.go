package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolWorkloads run programs in the mount.
func toolWorkloads(s sizes) []workload {
	return []workload{
		{name: "git", about: "init, add, commit, status and gc of " + part, group: bulk, layout: (*layouts).shallow, writes: true,
			full: true, needs: []string{"git"}, do: shell(gitScript)},
		{name: "go build", about: "go build of cmd/gofmt: compiler, sources and an empty GOCACHE in the mount", group: bulk,
			layout: (*layouts).goTree, writes: true, full: true, do: shell(goScript)},
		{name: "python", about: fmt.Sprintf("%d starts of an interpreter in the mount, with imports", s.starts), group: bulk,
			layout: (*layouts).python, needs: []string{"python3"}, do: startPython(s.starts)},
		{name: "sqlite", about: fmt.Sprintf("%d transactions as SQLite's rollback journal does them: three fsyncs each", s.transactions),
			group: bulk, layout: (*layouts).empty, writes: true,
			do: func(_ context.Context, t *task) error { return journal(t.root, s.transactions) }},
	}
}

// gitScript makes a repository without the configuration of the user or the machine.
const gitScript = `cd ` + part + `
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
git init -q .
git config user.name bench
git config user.email bench@localhost
git config gc.auto 0
git add .
git commit -q -m all
git status --porcelain
git gc --quiet`

// goScript builds with the tree's own compiler, without the network.
const goScript = `export GOROOT=$PWD GOCACHE=$PWD/.cache GOPATH=$PWD/.path GOTMPDIR=$PWD/.tmp
export GOENV=off GOFLAGS= GOTOOLCHAIN=local GOPROXY=off GOWORK=off CGO_ENABLED=0
mkdir .tmp
bin/go build -buildvcs=false -o .out cmd/gofmt`

// goTree is the whole tree, if it is that of Go.
func (l *layouts) goTree() (*layout, error) {
	for _, name := range []string{"bin/go", "src/cmd/gofmt", "pkg/tool"} {
		if _, err := os.Stat(filepath.Join(l.tree, name)); err != nil {
			return nil, fmt.Errorf("%w: %s is not a whole Go tree: %w", errUnavailable, l.tree, err)
		}
	}
	if l.sizes.every != 1 {
		return nil, fmt.Errorf("%w: only a part of the tree is there", errUnavailable)
	}
	return l.shallow()
}

// imports are those of a small tool.
const imports = "argparse, asyncio, email.message, http.client, json, logging, subprocess, tempfile, unittest, urllib.request, xml.etree.ElementTree"

// python is an interpreter with its library.
func (l *layouts) python() (*layout, error) {
	return l.once("python", "python", l.sizes.layers, func(made *layout) error {
		out, err := output(context.Background(), "", "python3", "-c",
			`import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path("stdlib")); print("python%d.%d" % sys.version_info[:2])`)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnavailable, err)
		}
		words := strings.Split(strings.TrimSpace(out), "\n")
		if len(words) != 3 {
			return fmt.Errorf("%w: python3 writes %q", errUnavailable, out)
		}
		if err := made.deal(words[1], filepath.Join("lib", words[2]), 1, []string{"site-packages", "dist-packages", "test", "tests",
			"idlelib"}); err != nil {
			return err
		}
		for _, root := range made.roots(0) {
			if err := run(context.Background(), "", "install", "-D", words[0], filepath.Join(root, "bin/python3")); err != nil {
				return err
			}
		}
		// The first start of each module writes what the later ones read.
		if err := pythonOnce(context.Background(), made.merged, "1"); err != nil {
			return fmt.Errorf("%w: %w", errUnavailable, err)
		}
		return nil
	})
}

func pythonOnce(ctx context.Context, root, name string) error {
	script := "import sys; assert sys.prefix == " + fmt.Sprintf("%q", root) + "; import " + imports
	cmd := exec.CommandContext(ctx, filepath.Join(root, "bin/python3"), "-B", "-s", "-S", "-c", script, name)
	cmd.Env = []string{"PYTHONHOME=" + root, "LC_ALL=C"}
	_, err := finish(cmd)
	return err
}

func startPython(count int) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		for i := range count {
			if err := pythonOnce(ctx, t.root, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	}
}

const (
	pageSize = 4096
	// databasePages are what the database has; touchedPages what a transaction changes.
	databasePages, touchedPages = 256, 4
)

// journal changes pages of a file with SQLite's order of calls (journal_mode=DELETE,
// synchronous=FULL, https://sqlite.org/atomiccommit.html): the old pages go into the journal, which
// is synced, with its directory; then the new ones into the database, which is synced; then the
// journal is removed.
func journal(root string, transactions int) (err error) {
	db, err := os.Create(filepath.Join(root, "db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Truncate(databasePages * pageSize); err != nil {
		return err
	}
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	page := noise()[:pageSize]
	for i := range transactions {
		if err := transaction(db, dir, root, page, i); err != nil {
			return err
		}
	}
	return nil
}

func transaction(db, dir *os.File, root string, page []byte, number int) error {
	path := filepath.Join(root, "db-journal")
	old, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	buffer := make([]byte, pageSize)
	// The header, one sector.
	_, err = old.Write(buffer[:512])
	for i := 0; i < touchedPages && err == nil; i++ {
		if _, err = db.ReadAt(buffer, pageAt(number, i)); err == nil {
			_, err = old.Write(buffer)
		}
	}
	if err == nil {
		err = old.Sync()
	}
	if err == nil {
		err = dir.Sync()
	}
	for i := 0; i < touchedPages && err == nil; i++ {
		_, err = db.WriteAt(page, pageAt(number, i))
	}
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, old.Close(), os.Remove(path))
}

// pageAt spreads a transaction's pages over the database.
func pageAt(number, i int) int64 {
	return int64((number*touchedPages+i)*37%databasePages) * pageSize
}
