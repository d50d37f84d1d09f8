// Package vacuum drops from an upper what the merged tree shows without it as well: copies that
// equal the object of the lowers, whiteouts that hide nothing, and directories that add nothing.
//
// It compares the merged tree with the tree of the lowers, both as views show them (internal/view).
// Each drop is one unlink(2) or rmdir(2) in the upper, and the merged tree is the same before and
// after it. So a process that ends in between leaves an upper from which less was dropped.
package vacuum
