// Package changes finds out what an upper changes: it compares the merged tree with the tree of the
// lowers alone, both as views show them (internal/view).
//
// The walk goes through the directories of the upper only, so its cost grows with the upper. Only
// in an opaque directory it lists the names of the lowers as well, because the upper does not name
// what is gone there. The package reads from the upper which names it has, and where it was moved
// from: opaque directories, redirects and metacopies, by packages whiteout and internal/ondisk. It
// has no rule of merging: whether a name shows, and what shows, is what the views return.
package changes
