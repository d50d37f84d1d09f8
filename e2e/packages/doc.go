// Package packages tests what `make packages` has built: does each package install, run and go away
// without a trace, beside the package fuse-overlayfs too? Are versions, checksums and SBOMs true?
//
// It needs FUSE_OVERLAY_PACKAGES, which `make test-packages` sets, and the mirror of Debian.
package packages
