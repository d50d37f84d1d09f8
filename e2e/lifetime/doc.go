// Package lifetime tests when a mount and its daemon begin and end, and which mount owns an upper:
// signals, dead mounts, namespaces, second mounts, volatile. It does not test what the tree shows
// meanwhile.
package lifetime
