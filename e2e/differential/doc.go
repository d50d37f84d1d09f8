// Package differential runs random operations on the program and on the kernel's overlayfs and
// compares results, merged trees and uppers. Its table of deviations is the one that
// docs/SEMANTICS.md promises. It knows no single feature.
package differential
