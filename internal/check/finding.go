package check

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

// Finding is one object with something wrong.
type Finding struct {
	Kind Kind
	// Layer is "upper", "work", "lower1" for the topmost lower, and so on.
	Layer string
	// Path is relative to the root of the layer; "." is the root.
	Path string
	// Detail is what the object has instead, in one line; it may be empty.
	Detail string
	// Repair mends it; nil: it cannot be repaired without losing data.
	Repair *Repair
}

// Note reports whether the finding is no damage.
func (f *Finding) Note() bool { return byKind[f.Kind].Note }

// Meaning returns what the finding means, in one line.
func (f *Finding) Meaning() string {
	meaning := byKind[f.Kind].Meaning
	if f.Detail != "" {
		meaning += ": " + f.Detail
	}
	return meaning
}

// String returns the line of the finding.
func (f *Finding) String() string {
	return fmt.Sprintf("%s\t%s:%s\t%s", f.Kind, f.Layer, quote.Path(f.Path), f.Meaning())
}

// report collects findings.
type report struct {
	layer    string
	findings []Finding
}

func (r *report) add(kind Kind, path, detail string, repair *Repair) {
	r.findings = append(r.findings, Finding{Kind: kind, Layer: r.layer, Path: cmp.Or(path, "."), Detail: detail, Repair: repair})
}

// unreadable reports an object that cannot be read. An object that another process has removed
// meanwhile is no finding.
func (r *report) unreadable(path string, err error) {
	if err != unix.ENOENT {
		r.add(Unreadable, path, err.Error(), nil)
	}
}

// sorted returns the findings in the order of the paths, those of one layer as they are.
func (r *report) sorted() []Finding {
	slices.SortStableFunc(r.findings, func(a, b Finding) int { return cmp.Compare(a.Path, b.Path) })
	return r.findings
}
