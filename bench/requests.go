package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// counts are how many requests of each kind the kernel has sent.
type counts map[string]int64

func (c counts) total() int64 {
	var sum int64
	for _, n := range c {
		sum += n
	}
	return sum
}

// String returns the total, and the kinds, the most frequent first.
func (c counts) String() string {
	kinds := slices.SortedFunc(maps.Keys(c), func(a, b string) int {
		return cmp.Or(cmp.Compare(c[b], c[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, kind := range kinds {
		parts = append(parts, fmt.Sprintf("%s %d", kind, c[kind]))
	}
	if len(parts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s", c.total(), strings.Join(parts, ", "))
}

// log makes the daemon write a log. After SIGUSR1 it logs how many requests it has served.
func (s *session) log() {
	option := "log=" + filepath.Join(s.dir, "log")
	if s.options != "" {
		option = s.options + "," + option
	}
	s.options = option
}

// during counts the requests that fn causes.
func (s *session) during(count counting, fn func() error) (counts, error) {
	if count == notCounted {
		return nil, fn()
	}
	before, err := s.requests()
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := s.requests()
	if err != nil {
		return nil, err
	}
	for kind, n := range before {
		if after[kind] -= n; after[kind] == 0 {
			delete(after, kind)
		}
	}
	return after, nil
}

// requests sends SIGUSR1 to the daemon and waits for the line in its log.
func (s *session) requests() (counts, error) {
	before, err := s.answers()
	if err != nil {
		return nil, err
	}
	pids := s.daemons()
	if len(pids) != 1 {
		return nil, fmt.Errorf("%d processes serve %s, not one", len(pids), s.root)
	}
	daemon, err := os.FindProcess(pids[0])
	if err != nil {
		return nil, err
	}
	if err := daemon.Signal(syscall.SIGUSR1); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		after, err := s.answers()
		if err != nil {
			return nil, err
		}
		if len(after) > len(before) {
			return after[len(after)-1], nil
		}
	}
	return nil, errors.New("no answer to SIGUSR1 in the log")
}

// answers returns the lines of the log about requests: JSON with the message "requests" and a
// number for each kind, which has a name in capitals.
func (s *session) answers() ([]counts, error) {
	f, err := os.Open(filepath.Join(s.dir, "log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []counts
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var fields map[string]any
		if json.Unmarshal(lines.Bytes(), &fields) != nil || fields["msg"] != "requests" {
			continue // Something else, or not yet whole.
		}
		c := counts{}
		for kind, value := range fields {
			if n, ok := value.(float64); ok && kind == strings.ToUpper(kind) {
				c[kind] = int64(n)
			}
		}
		all = append(all, c)
	}
	return all, nil
}
