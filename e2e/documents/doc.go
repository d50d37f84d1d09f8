// Package documents tests that the documents are true. It runs their shell blocks as root, in a
// user namespace, as a plain user and with podman. It follows their links, and compares what they
// quote with the source. It does not test docs/examples, which package command does.
package documents
