// Package cost tests what the program costs: requests of each kind, descriptors, cached inodes and
// wake-up latency of the CPUs. It measures no time: package bench does.
package cost
