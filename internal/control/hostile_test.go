package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dialPath(path string) (net.Conn, error) {
	c, err := net.Dial("unix", path)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// A client that sends nothing is cut off, and others are served meanwhile.
func TestSilentClients(t *testing.T) {
	s := newSite(t).listen(nil)
	start := time.Now()
	silent := s.connect()
	if _, err := s.info(); err != nil {
		t.Errorf("beside a silent client: %v", err)
	}
	text, err := io.ReadAll(silent)
	if err != nil || string(text) != `{"error":"`+errNoLine.Error()+`"}`+"\n" {
		t.Errorf("the silent client gets %q, %v", text, err)
	}
	if took := time.Since(start); took < requestTime || took > requestTime+replyTime {
		t.Errorf("the silent client was cut off after %v, want %v", took, requestTime)
	}
}

// A client that does not read its reply is cut off.
func TestClientsThatDoNotRead(t *testing.T) {
	large := Stats{Requests: make([]Request, 20_000)} // more than the kernel holds for a socket
	s := newSite(t).listen(func() Stats { return large })
	for range maxClients {
		c := s.connect()
		if _, err := io.WriteString(c, "stats\n"); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if _, err := s.info(); err != nil {
		t.Errorf("behind clients that do not read: %v", err)
	}
	if took := time.Since(start); took > replyTime+2*time.Second {
		t.Errorf("it waited %v", took)
	}
}

// However many hostile clients there are, the daemon has a few goroutines and descriptors for them,
// and others get their replies.
func TestManyHostileClients(t *testing.T) {
	s := newSite(t).listen(nil)
	before := runtime.NumGoroutine()
	garbage := [][]byte{nil, []byte("\n"), bytes.Repeat([]byte("x"), 1<<20), {0, 0xff, '\n'}, []byte("info"), []byte("info\r\n")}
	var clients sync.WaitGroup
	const hostile = 200
	for i := range hostile {
		clients.Go(func() {
			c, err := dialPath(s.socket())
			if err != nil { // EAGAIN: too many wait
				if !errors.Is(err, unix.EAGAIN) {
					t.Error(err)
				}
				return
			}
			defer c.Close()
			_, _ = c.Write(garbage[i%len(garbage)])
			if i%2 == 0 {
				_, _ = io.Copy(io.Discard, c)
			}
		})
	}
	if _, err := s.info(); err != nil {
		t.Errorf("beside hostile clients: %v", err)
	}
	clients.Wait()
	for range 200 {
		if runtime.NumGoroutine() <= before+maxClients {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+maxClients {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if _, err := s.info(); err != nil {
		t.Errorf("after hostile clients: %v", err)
	}
	if len(s.failed) > 0 {
		t.Errorf("faults: %v", s.failed)
	}
}

// No more than maxClients get replies in the pause, so that clients cannot take all CPUs.
func TestRateOfReplies(t *testing.T) {
	s := newSite(t).listen(nil)
	const requests = 5 * maxClients
	start := time.Now()
	var clients sync.WaitGroup
	for range requests {
		clients.Go(func() {
			if _, err := s.info(); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if took := time.Since(start); took < (requests/maxClients-1)*pause {
		t.Errorf("%d requests took %v", requests, took)
	}
}

// A fault in the daemon's own numbers is an error of one client.
func TestPanic(t *testing.T) {
	s := newSite(t).listen(func() Stats { panic("a fault") })
	_, err := callIn(t.Context(), s.dir, testName, requestStats)
	if err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("%v", err)
	}
	if _, err := s.info(); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	if len(s.failed) != 1 || !strings.Contains(s.failed[0].Error(), "a fault") {
		t.Errorf("faults: %v", s.failed)
	}
}

// Replies that JSON cannot hold, or that are too large, are errors.
func TestRepliesThatAreNotPossible(t *testing.T) {
	for name, stats := range map[string]Stats{
		"no number": {Uptime: math.NaN()},
		"too large": {Mount: Mount{Lowers: []string{strings.Repeat("x", maxReply)}}},
	} {
		text := encode(reply{Stats: &stats})
		var r reply
		if err := json.Unmarshal(text, &r); err != nil || r.Error == "" || r.Stats != nil || len(text) > 200 {
			t.Errorf("%s: %.200q, %v", name, text, err)
		}
	}
}

// Whatever a client sends, the reply is one line of JSON, and no request that is known by chance.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{"", "\n", "info\n", "stats\n", "info", "INFO\n", "info \n", "info\x00\n", "stats\nstats\n",
		"\xff\xfe\n", strings.Repeat("a", maxRequest) + "\n", strings.Repeat("a", maxRequest+1) + "\n", "<script>\n", "{\"error\":\"\"}\n"} {
		f.Add([]byte(text))
	}
	s := &Server{source: Source{Mount: func() Mount { return Mount{} }, Stats: func() Stats { return Stats{} }}}
	f.Fuzz(func(t *testing.T, text []byte) {
		request, err := readRequest(bytes.NewReader(text))
		if err != nil {
			if request != "" || err != errTooLong && err != errNoLine {
				t.Fatalf("%q, %v", request, err)
			}
			return
		}
		if len(request) > maxRequest || strings.Contains(request, "\n") || !bytes.HasPrefix(text, []byte(request+"\n")) {
			t.Fatalf("the request is %q", request)
		}
		out := s.reply(request)
		var r reply
		if bytes.Count(out, []byte{'\n'}) != 1 || !bytes.HasSuffix(out, []byte{'\n'}) || json.Unmarshal(out, &r) != nil {
			t.Fatalf("%q has the reply %q", request, out)
		}
		if known := request == requestInfo || request == requestStats; known != (r.Error == "") {
			t.Fatalf("%q has the reply %q", request, out)
		}
	})
}

// Whatever a daemon replies, the client has an error or one of the members.
func FuzzReply(f *testing.F) {
	for _, text := range []string{"", "{}", "null", "[]", `{"error":"x"}`, `{"mount":{"pid":1}}`, `{"mount":null}`, `{"stats":{"requests":[{}]}}`,
		`{"mount":{"pid":"x"}}`, `{"stats":{"uptime_seconds":1e999}}`, strings.Repeat("[", 20_000), `{"mount":{"lowerdirs":["\u001b[2J"]}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := readReply(bytes.NewReader(text)); (r == nil) != (err != nil) {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// A daemon that is stopped takes the connection, and sends nothing.
func TestSilentDaemon(t *testing.T) {
	s := newSite(t)
	must(t, os.Mkdir(filepath.Dir(s.socket()), 0o700))
	l, err := net.Listen("unix", s.socket())
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if r, err := callIn(ctx, s.dir, testName, requestInfo); !errors.Is(err, errSilent) {
		t.Errorf("%+v, %v", r, err)
	}
}

// endless is a daemon that does not stop.
type endless struct{}

func (endless) Read(buf []byte) (int, error) {
	for i := range buf {
		buf[i] = ' '
	}
	return len(buf), nil
}

func TestEndlessReply(t *testing.T) {
	if r, err := readReply(endless{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%+v, %v", r, err)
	}
}
