// Package ocilayer writes what an upper changes as a layer of an OCI image: a tar archive with
// markers for what is gone (image-spec, layer.md).
//
// The archive is that of a walk of internal/changes, in the order of the tree, and depends on the
// layers alone. Each object has its parents before it: an engine that unpacks a layer into an empty
// folder would otherwise make them with an owner and a mode of its own. What is gone has a marker
// ".wh.NAME". A directory that hides what the lowers have has ".wh..wh..opq" only if its content is
// written whole: if it was renamed, if the lowers are not known, or if a name is too long for a
// marker.
package ocilayer
