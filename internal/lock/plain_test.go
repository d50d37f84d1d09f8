//go:build !lockrank

package lock

import (
	"reflect"
	"sync"
	"testing"
)

// In normal builds a rank costs nothing.
func TestRanksAreFree(t *testing.T) {
	if a, b := reflect.TypeFor[Mutex[Dir]](), reflect.TypeFor[sync.Mutex](); a != b {
		t.Errorf("Mutex is %v, want %v", a, b)
	}
	if a, b := reflect.TypeFor[RWMutex[Dir]](), reflect.TypeFor[sync.RWMutex](); a != b {
		t.Errorf("RWMutex is %v, want %v", a, b)
	}
}
