// Package format tests what lies on disk: each feature of the format, written by the program and by
// the kernel's overlayfs, and read by the other. It does not check request counts or rights.
package format
