//go:build !lockrank

package lock

import "sync"

// Checked reports whether this build checks the order.
const Checked = false

// Mutex is a sync.Mutex of rank R.
type Mutex[R any] = sync.Mutex

// RWMutex is a sync.RWMutex of rank R.
type RWMutex[R any] = sync.RWMutex
