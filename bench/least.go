package main

import (
	"fmt"
	"strings"
)

// missingNames is the workload of which the daemon answers every request from memory.
const missingNames = "missing names"

// emptyRequest returns the cost of a request that is answered from memory, in nanoseconds: a lookup
// of a missing name, less that in a plain directory. 0: the report does not have it.
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

// least returns the ratio to base if each request cost as much as an empty one, and everything else
// as much as in a plain directory. Empty: the report does not have it.
func (r *report) least(of *result, f *figures, empty float64) string {
	plain, kernel := of.figures(native), of.figures(base)
	if empty == 0 || plain == nil || kernel == nil || kernel.Median == 0 {
		return ""
	}
	return decimals((plain.Median + float64(f.Requests.waitedFor())*empty) / kernel.Median)
}

// waitedFor returns the number of requests for which a client waits. FORGET has no reply.
func (c counts) waitedFor() int64 { return c.total() - c["FORGET"] }

// aboutLeast explains the column.
func aboutLeast(empty float64) string {
	if empty == 0 {
		return ""
	}
	return fmt.Sprintf("least: the ratio to %s, were each request as cheap as one for a missing name (%.1f µs) and all else as in a plain "+
		"directory.\n", base, empty/1000)
}
