// Package layerconfig makes the configuration with which commands open the layers of an overlay for
// reading, from directories and from the options of a mount that decide what the layers mean.
package layerconfig
