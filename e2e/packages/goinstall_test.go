package packages

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// go install gets both programs of a version from a proxy, and they report that version. The proxy
// is a folder with this tree, and the modules of this machine's cache.
func TestGoInstall(t *testing.T) {
	folder(t)
	dir := harness.NewEnv(t, harness.ModeRoot).Dir
	const version = "v0.9.9"
	script(t, "../..", `
		module=github.com/fuse-overlay/fuse-overlay version=`+version+`
		at=`+dir+`/proxy/$module/@v
		mkdir -p $at
		echo $version >$at/list
		echo "{\"Version\":\"$version\",\"Time\":\"2026-11-30T00:00:00Z\"}" >$at/$version.info
		cp go.mod $at/$version.mod
		git -c safe.directory="$PWD" archive --format=zip --prefix=$module@$version/ -o $at/$version.zip HEAD
		export GOPROXY=file://`+dir+`/proxy,file://$(go env GOMODCACHE)/cache/download
		export GOMODCACHE=`+dir+`/modules GOBIN=`+dir+`/bin GOSUMDB=off GOFLAGS='-trimpath -modcacherw' CGO_ENABLED=0
		cd /
		go install $module/cmd/fuse-overlay@$version
		ls $GOBIN | grep -v commands
		! $GOBIN/fuse-overlay version 2>`+dir+`/missing
		go install $module/cmd/...@$version`)
	if text := harness.ReadText(t, dir+"/missing"); !strings.Contains(text, "go install github.com/fuse-overlay/fuse-overlay/cmd/...@") {
		t.Errorf("without the second program: %q", text)
	}
	harness.Equal(t, "-V", script(t, dir, "bin/fuse-overlay -V"), "fuse-overlay version "+version+"\n")
	out := script(t, dir, "bin/fuse-overlay version")
	harness.Equal(t, "version", strings.SplitN(out, "\n", 2)[0], "fuse-overlay version "+version)
}
