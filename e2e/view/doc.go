// Package view tests what the merged tree shows and how operations change it: listings, names,
// kinds, data, layers that change under a mount, and overlays on overlays. It does not check the
// form of what lies on disk.
package view
