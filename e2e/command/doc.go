// Package command tests what a user types and reads: options, messages, mount(8), the command lines
// of clients, and the examples of the documents. It does not test what a mount does afterwards.
package command
