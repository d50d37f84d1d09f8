// Package archtest holds the rules of the house as a test: which room may import which, and who may call the system.
// ARCHITECTURE.md tells the design; this package keeps it true, and prints the reason of each ban that is broken.
// It has no code besides its tests.
package archtest
