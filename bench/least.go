package main

import (
	"fmt"
	"strings"
)

// missingNames is the workload whose every request is answered from memory.
const missingNames = "missing names"

// emptyRequest is what one request costs that is answered from memory, in nanoseconds: looking up a missing name, less what that
// takes in a plain directory. 0 where the report does not tell.
func (r *report) emptyRequest() float64 {
	for _, result := range r.Results {
		if !strings.HasPrefix(result.Name, missingNames) {
			continue
		}
		plain := result.figures(native)
		for _, f := range result.Figures {
			if n := f.Requests.waitedFor(); plain != nil && n > 0 {
				return max(0, (f.Median-plain.Median)/float64(n))
			}
		}
	}
	return 0
}

// least is the ratio to base that is left where a request costs no more than an empty one, and everything else what it does in
// a plain directory; empty where the report does not tell.
func (r *report) least(of *result, f *figures, empty float64) string {
	plain, kernel := of.figures(native), of.figures(base)
	if empty == 0 || plain == nil || kernel == nil || kernel.Median == 0 {
		return ""
	}
	return decimals((plain.Median + float64(f.Requests.waitedFor())*empty) / kernel.Median)
}

// waitedFor are the requests that somebody waits for: to FORGET there is no answer.
func (c counts) waitedFor() int64 { return c.total() - c["FORGET"] }

// aboutLeast explains the column.
func aboutLeast(empty float64) string {
	if empty == 0 {
		return ""
	}
	return fmt.Sprintf("least: the ratio to %s, were each request as cheap as one for a missing name (%.1f µs) and all else as in a plain "+
		"directory.\n", base, empty/1000)
}
