package format

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// formats are the features of the format, each with changes that exercise it.
var formats = []format{
	{
		name: "whiteouts", opts: []string{"redirect_dir=off", "index=off", "metacopy=off", "xino=off"},
		modes: harness.OnlyRoot, identity: true,
		layers: plainLayers, scripts: plainScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"a whiteout is gone":            withoutFile("upper/gone"),
			"a directory is opaque no more": without("d", "trusted.overlay.opaque"),
		},
	},
	{
		name: "userxattr", opts: []string{"userxattr"}, kernel: []string{"index=off", "xino=off"}, modes: harness.RootModes,
		since:  escapesSince,
		layers: plainLayers, scripts: append([]string{plainScripts[0] + `
			rename tree moved = EXDEV
			setxattr d user.overlay.opaque y
			setxattr tree user.overlay.redirect /there`}, plainScripts[1:]...),
		broken: map[string]func(o *harness.Overlay) error{
			"a directory is opaque no more": without("d", "user.overlay.opaque"),
			"an escaped attribute is gone":  without("tree", "user.overlay.overlay.redirect"),
		},
	},
	{
		name: "userns", kernel: []string{"userxattr", "index=off", "xino=off"}, modes: []harness.Mode{harness.ModeUserns},
		layers: plainLayers, scripts: plainScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"a directory is opaque no more": without("d", "user.overlay.opaque"),
		},
	},
	{
		name: "redirect_dir", opts: []string{"redirect_dir=on", "index=off", "metacopy=off", "xino=off"},
		modes: harness.OnlyRoot, identity: true,
		layers: redirectLayers, scripts: redirectScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"a relative redirect is gone":  without("p/b/d", "trusted.overlay.redirect"),
			"an absolute redirect is gone": without("p/b", "trusted.overlay.redirect"),
		},
	},
	{
		name: "follow", opts: []string{"redirect_dir=on", "index=off", "metacopy=off", "xino=off"}, modes: harness.OnlyRoot,
		identity: true,
		then:     []string{"redirect_dir=follow", "index=off", "metacopy=off", "xino=off"},
		layers:   redirectLayers, scripts: []string{redirectScripts[0], followScript, lastFollowScript},
		broken: map[string]func(o *harness.Overlay) error{
			"a redirect is gone": without("q", "trusted.overlay.redirect"),
		},
	},
	{
		name: "metacopy", opts: []string{"redirect_dir=on", "index=off", "metacopy=on", "xino=off"}, modes: harness.OnlyRoot,
		identity: true,
		layers:   metacopyLayers, scripts: metacopyScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"the mark of a file without data is gone": without("mode", "trusted.overlay.metacopy"),
			"a redirect of a file is gone":            without("far/away", "trusted.overlay.redirect"),
		},
	},
	{
		name: "index", opts: []string{"redirect_dir=on", "index=on", "metacopy=off", "xino=off"}, modes: harness.OnlyRoot,
		identity: true,
		layers:   indexLayers, scripts: indexScripts, inside: lookAtIndex,
		broken: map[string]func(o *harness.Overlay) error{
			"the index is gone": func(o *harness.Overlay) error {
				return os.RemoveAll(filepath.Join(o.Work,
					"index"))
			},
			"the link counts are gone":     withoutLinkCounts,
			"the origin of a link is gone": without("a1", "trusted.overlay.origin"),
		},
	},
	{
		name: "origin", opts: []string{"redirect_dir=off", "index=off", "metacopy=off", "xino=off"}, modes: harness.OnlyRoot,
		identity: true,
		layers:   originLayers, scripts: originScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"an origin is gone":               without("f", "trusted.overlay.origin"),
			"the origin of a device is gone":  without("null", "trusted.overlay.origin"),
			"the mark of moved files is gone": without("other", "trusted.overlay.impure"),
		},
	},
	{
		name: "xino", opts: []string{"redirect_dir=on", "index=off", "metacopy=off", "xino=on"}, modes: harness.OnlyRoot,
		identity: true, apart: true,
		layers: originLayers, scripts: originScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"an origin is gone": without("f", "trusted.overlay.origin"),
		},
	},
	{
		name: "volatile", opts: []string{"volatile", "redirect_dir=off", "index=off", "metacopy=off", "xino=off"},
		modes:  harness.OnlyRoot,
		layers: plainLayers, scripts: plainScripts, mark: "work/incompat",
		broken: map[string]func(o *harness.Overlay) error{
			"the mark is gone": func(o *harness.Overlay) error { return os.RemoveAll(filepath.Join(o.Work, "work/incompat")) },
		},
	},
	{
		name: "xattr_whiteouts", opts: []string{"redirect_dir=off", "index=off", "metacopy=off", "xino=off"},
		here: []string{"xattr_whiteouts"}, since: escapesSince, modes: harness.OnlyRoot, layers: xattrWhiteoutLayers,
		scripts: xattrWhiteoutScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"a whiteout of the upper is gone": withoutFile("upper/rm"),
			"a file is no whiteout any more": func(o *harness.Overlay) error {
				return unix.Lremovexattr(filepath.Join(o.Lowers[0], "d/hidden"), "trusted.overlay.whiteout")
			},
		},
	},
	{
		name: "data-only", opts: []string{"redirect_dir=on", "index=off", "metacopy=on", "xino=off"}, modes: harness.OnlyRoot,
		since: [2]int{6, 5}, layers: metacopyLayers, scripts: dataOnlyScripts,
		broken: map[string]func(o *harness.Overlay) error{
			"a redirect to the data is gone": without("far/away", "trusted.overlay.redirect"),
		},
	},
	{
		name: "inode_flags", opts: []string{"redirect_dir=off", "index=off", "metacopy=off", "xino=off"},
		modes:  harness.OnlyRoot,
		layers: plainLayers, scripts: flagScripts, inside: lookAtFlags,
		broken: map[string]func(o *harness.Overlay) error{
			"a file is immutable no more":        without("f", "trusted.overlay.protattr"),
			"a directory is append-only no more": without("d", "trusted.overlay.protattr"),
		},
	},
	{
		name: "all", opts: []string{"redirect_dir=on", "metacopy=on", "index=on", "xino=auto"}, modes: harness.OnlyRoot,
		identity: true,
		layers:   beside(redirectLayers, metacopyLayers, indexLayers, originLayers), inside: lookAtIndex,
		scripts: beside(redirectScripts, metacopyScripts, indexScripts, originScripts),
		broken: map[string]func(o *harness.Overlay) error{
			"an absolute redirect is gone":            without("0/p/b", "trusted.overlay.redirect"),
			"the mark of a file without data is gone": without("1/mode", "trusted.overlay.metacopy"),
			"the index is gone":                       func(o *harness.Overlay) error { return os.RemoveAll(filepath.Join(o.Work, "index")) },
			"an origin is gone":                       without("3/f", "trusted.overlay.origin"),
		},
	},
	{
		name: "nesting", opts: []string{"redirect_dir=off", "index=off", "metacopy=off", "xino=off"},
		since: escapesSince, modes: harness.OnlyRoot, identity: true,
		layers: nestingLayers, scripts: nestingScripts, inside: lookInside,
		broken: map[string]func(o *harness.Overlay) error{
			"an escaped mark is gone": without("in0/d", "trusted.overlay.overlay.opaque"),
		},
	},
}
