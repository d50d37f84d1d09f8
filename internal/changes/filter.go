package changes

import "strings"

// filter selects paths and what is below them. An empty one selects everything.
type filter []string

// place is where a path lies relative to a filter.
type place uint8

const (
	outside place = iota
	above         // of something selected
	inside
)

func (f filter) place(path string) place {
	if len(f) == 0 {
		return inside
	}
	p := outside
	for _, selected := range f {
		switch {
		case selected == "." || path == selected || strings.HasPrefix(path, selected+"/"):
			return inside
		case path == "." || strings.HasPrefix(selected, path+"/"):
			p = above
		}
	}
	return p
}

// below returns what is selected below a path, as paths relative to that.
func (f filter) below(path string) (relative []string) {
	for _, selected := range f {
		if path == "." {
			relative = append(relative, selected)
		} else if rest, ok := strings.CutPrefix(selected, path+"/"); ok {
			relative = append(relative, rest)
		}
	}
	return relative
}
