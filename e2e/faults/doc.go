// Package faults tests what happens when something fails: full, slow, damaged and poor file
// systems, killed daemons, power cuts, and the bugs of the past, each as a named case. It does not
// test failures of the caller: see package command.
package faults
