// Package unpack unpacks a layer of an OCI image (image-spec, layer.md) as a lower of an overlay.
//
// The layer is a tar archive, plain or compressed by gzip or zstd, and its content is not trusted.
// The objects are made by package layer of umoci, which resolves all names inside the root. This
// package checks each entry before that. It makes the whiteouts and opaque directories itself, by
// package whiteout, in the form that the file system takes.
//
// An archive cannot forge a mark of the overlay: attributes with private names are escaped, as the
// mount does when a process sets them, or refused, and a device 0/0 is refused.
//
// All is made in a staging directory beside the target, and one rename moves it there.
package unpack
