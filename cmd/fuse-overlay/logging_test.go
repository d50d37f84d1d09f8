package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func listenSyslog(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func receive(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	if err := l.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := l.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := listenSyslog(t, path)
	out, err := dialSyslog(path, "the-name")
	if err != nil {
		t.Fatal(err)
	}
	log := zap.New(newSyslogCore(out, zapcore.InfoLevel))

	log.Debug("not to be seen")
	log.With(zap.Int("a", 1)).Warn("hello", zap.String("b", "x"))
	want := regexp.MustCompile(`^<28>[A-Z][a-z][a-z] [ 123]\d \d\d:\d\d:\d\d the-name\[\d+\]: hello\t\{"a": 1, "b": "x"\}$`)
	if got := receive(t, l); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
	log.Error("two\nlines")
	if got := receive(t, l); !strings.HasPrefix(got, "<27>") || !strings.HasSuffix(got, ": two; lines") {
		t.Errorf("got %q", got)
	}

	// The receiver is restarted.
	l.Close()
	os.Remove(path)
	log.Info("lost")
	l = listenSyslog(t, path)
	log.Info("again")
	if got := receive(t, l); !strings.HasPrefix(got, "<30>") || !strings.HasSuffix(got, ": again") {
		t.Errorf("got %q", got)
	}
}

// A receiver that does not read may be waiting for this very mount.
func TestSyslogThatDoesNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listenSyslog(t, path)
	out, err := dialSyslog(path, "the-name")
	if err != nil {
		t.Fatal(err)
	}
	log := zap.New(newSyslogCore(out, zapcore.InfoLevel))
	queue := 0 // lines the socket takes before it is full
	for start := time.Now(); time.Since(start) < syslogTimeout; queue++ {
		if queue > 100000 {
			t.Fatal("the socket is never full")
		}
		start = time.Now()
		log.Info("filling")
	}
	start := time.Now()
	log.Info("dropped")
	if took := time.Since(start); took > 20*syslogTimeout {
		t.Errorf("a full socket held the log up for %v", took)
	}
}

func TestNoSyslog(t *testing.T) {
	if _, err := dialSyslog(filepath.Join(t.TempDir(), "log"), "the-name"); err == nil {
		t.Error("no error without a socket")
	}
}

func TestFileLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	req := &request{logFile: path}
	for _, text := range []string{"first", "second"} {
		log, err := daemonLog(req)
		if err != nil {
			t.Fatal(err)
		}
		log.Info(text, zap.Uint64("n", 1))
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\{"level":"INFO","ts":"\S+","msg":"first","n":1\}\n\{"level":"INFO","ts":"\S+","msg":"second","n":1\}\n$`).Match(got) {
		t.Errorf("got %q", got)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}

	req.logFile = filepath.Join(path, "log")
	if _, err := foregroundLog(req); err == nil || !strings.Contains(err.Error(), req.logFile) {
		t.Errorf("an error that does not name the file: %v", err)
	}
}
