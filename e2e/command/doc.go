// Package command tests what a user types and reads: options, messages, mount(8), the command lines
// of clients, and the documents with their examples. It does not test what a mount does afterwards.
package command
