package progress

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// terminal keeps what is written.
type terminal struct {
	mu   sync.Mutex
	text strings.Builder
	err  error
}

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.text.Write(p)
}

func (s *terminal) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text.String()
	s.text.Reset()
	return text
}

// Work of less than a second shows nothing.
func TestShortWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out terminal
		b := Start(&out, "checking", Objects, Unknown)
		b.Add(5)
		time.Sleep(delay - time.Millisecond)
		if _, err := b.Write([]byte("a line\n")); err != nil {
			t.Error(err)
		}
		b.End()
		b.End()
		if got := out.take(); got != "a line\n" {
			t.Errorf("%q", got)
		}
	})
}

// The line shows what has been done, makes room for others, and goes at the end.
func TestBar(t *testing.T) {
	for _, tt := range []struct {
		name  string
		unit  Unit
		total int64
		want  []string
	}{
		{"objects", Objects, Unknown, []string{"checking", "(1234)", "[2s]"}},
		{"bytes", Bytes, Unknown, []string{"checking", "(1.2 KiB", "[2s]"}},
		{"a total", Bytes, 2468, []string{"checking", " 50% [##########..........]", "1.2/2.4 KiB", "[2s:1s]"}},
		{"more than the total", Objects, 10, []string{"checking", " 90% [", "(9/10)"}},
		{"no work", Objects, 0, []string{"checking", "(1234)"}},
		{"a wait", Nothing, Unknown, []string{"checking", "[2s]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out terminal
				b := Start(&out, "checking", tt.unit, tt.total)
				b.Add(1000)
				b.Add(234)
				time.Sleep(delay + 2*time.Second + period + period/2)
				text := out.take()
				last := text[strings.LastIndexByte(text, '\r'):]
				for _, want := range tt.want {
					if !strings.Contains(last, want) {
						t.Errorf("the line %q lacks %q", last, want)
					}
				}
				if strings.Contains(text, "\n") || strings.Contains(text, "\x1b[3") {
					t.Errorf("lines or colours: %q", text)
				}
				if n, err := b.Write([]byte("a line\n")); n != 7 || err != nil {
					t.Error(n, err)
				}
				b.End()
				const clear = "\x1b[2K\r"
				got := out.take()
				if !strings.HasPrefix(got, clear+"a line\n\r") || !strings.HasSuffix(got, clear) {
					t.Errorf("at the end: %q", got)
				}
				if _, err := b.Write([]byte("later\n")); err != nil || out.take() != "later\n" {
					t.Error("a line after the end is not alone", err)
				}
			})
		})
	}
}

// A terminal that is gone ends no work, but a line for it is an error.
func TestTerminalIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		b := Start(&terminal{err: gone}, "checking", Objects, Unknown)
		time.Sleep(3 * delay)
		if _, err := b.Write([]byte("a line\n")); !errors.Is(err, gone) {
			t.Error(err)
		}
		b.End()
	})
}

func TestNoBar(t *testing.T) {
	var b *Bar
	b.Add(1)
	b.End()
}
