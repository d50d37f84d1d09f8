//go:build !race

package sandbox

// freeInRaceBuilds are calls of the race detector: there is none in this build.
var freeInRaceBuilds []uint32
