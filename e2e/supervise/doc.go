// Package supervise kills the daemon of mounts with option supervise while processes use them, and
// checks that none of them notices: each call has the result that it has in a plain directory, and
// what was open stays open.
package supervise
