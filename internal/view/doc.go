// Package view reads the merged tree of an overlay without a mount. A [View] calls the operations
// that a mount serves, in this process and without a kernel, so it shows exactly what a mount of
// the same layers with the same options shows. It knows no rule of the format.
//
// A view changes nothing in a layer, and takes no lock: another process may have the layers
// mounted, and may change them. Each lookup reads the layers. It makes a bounded number of calls on
// each layer and lists no directory.
package view
