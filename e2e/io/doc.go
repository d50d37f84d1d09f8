// Package io tests the data path: writeback cache, direct I/O, passthrough, mappings, O_TMPFILE and
// random operations (package fsx). It checks data and sizes, not metadata.
package io
