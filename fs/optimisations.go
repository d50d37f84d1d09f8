package fs

import (
	"fmt"
	"strings"
)

// Optimisations is a set of optimisations that [Config].Disabled can turn off, to find out whether
// one of them causes a problem. docs/design has a page about each one.
type Optimisations uint8

// The optimisations of option disable.
const (
	SpinningReader    Optimisations = 1 << iota // an idle reader looks for requests for a while before it blocks.
	ListingSamples                              // READDIRPLUS returns attributes only to threads that use them.
	UnlistedDirs                                // a large merged directory is not listed for a few lookups.
	SecondThread                                // two threads open and list the subdirectories of one reply.
	Prefetch                                    // an idle reader reads the next small file of a lower
	DirectIOOnNewFile                           // CREATE returns FOPEN_DIRECT_IO for files that are created to be written
	QuietXattrs                                 // layers without xattrs are not read for each request; an engine's mount gets none.
)

// optimisationNames are the values of option disable.
var optimisationNames = []struct {
	name string
	one  Optimisations
}{
	{"spin", SpinningReader},
	{"samples", ListingSamples},
	{"unlisted", UnlistedDirs},
	{"second_thread", SecondThread},
	{"prefetch", Prefetch},
	{"direct_io", DirectIOOnNewFile},
	{"quiet_xattrs", QuietXattrs},
}

// ParseOptimisations reads names that are separated by colons. The error lists all names.
func ParseOptimisations(list string) (Optimisations, error) {
	var set Optimisations
	for name := range strings.SplitSeq(list, ":") {
		one := optimisationOf(name)
		if one == 0 {
			return 0, fmt.Errorf("%.80q is none of %v", name, ^Optimisations(0))
		}
		set |= one
	}
	return set, nil
}

// optimisationOf returns 0 for a name that does not exist.
func optimisationOf(name string) Optimisations {
	for _, o := range optimisationNames {
		if o.name == name {
			return o.one
		}
	}
	return 0
}

// String returns the names, in the order of the constants.
func (s Optimisations) String() string {
	var names []string
	for _, o := range optimisationNames {
		if s.has(o.one) {
			names = append(names, o.name)
		}
	}
	return strings.Join(names, ", ")
}

func (s Optimisations) has(one Optimisations) bool { return s&one != 0 }
