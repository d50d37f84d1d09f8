package main

import (
	"errors"
	"fmt"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
)

// syslogSocket is where the journal or syslog listens.
const syslogSocket = "/dev/log"

// syslogTimeout is how long a log line may delay the request that writes it. The reader of the
// socket may itself wait for a file of this mount. The Writer of package log/syslog has no timeout.
const syslogTimeout = 20 * time.Millisecond

// syslogConn sends lines to the syslog socket. A line that cannot be sent is dropped.
type syslogConn struct {
	path, tag string
	dir       *os.File // the directory that path begins at; nil: the root

	mu   lock.Mutex[lock.Leaf]
	conn *net.UnixConn // guarded by mu
}

func dialSyslog(path, tag string) (*syslogConn, error) {
	s := &syslogConn{path: path, tag: tag}
	if err := s.dial(); err != nil {
		return nil, err
	}
	// The daemon changes its root, but may have to open the socket again.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if s.dir, err = os.OpenFile(filepath.Dir(real), unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			s.path = fmt.Sprintf("/proc/thread-self/fd/%d/%s", s.dir.Fd(), filepath.Base(real))
		}
	}
	return s, nil
}

// dial connects. Precondition: mu is held, or no other goroutine uses s.
func (s *syslogConn) dial() (err error) {
	s.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	return err
}

// send sends one line. The receiver sorts lines by severity.
func (s *syslogConn) send(severity syslog.Priority, text string) {
	line := fmt.Appendf(nil, "<%d>%s %s[%d]: %s",
		syslog.LOG_DAEMON|severity, time.Now().Format(time.Stamp), s.tag, os.Getpid(), text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil && s.dial() != nil { // the process has taken over the log of another one
		return
	}
	if err := s.write(line); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	// The receiver has been restarted, with a new socket.
	if host.Reconnect(s.conn, s.path) == nil {
		_ = s.write(line)
	}
}

// descriptor returns that of the socket, which stays the same.
func (s *syslogConn) descriptor() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return host.DescriptorOf(s.conn)
}

// write sends one line. Precondition: mu is held.
func (s *syslogConn) write(line []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(syslogTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(line)
	return err
}

// syslogCore is a zapcore.Core without time and level: the receiver adds them.
type syslogCore struct {
	zapcore.LevelEnabler
	encoder zapcore.Encoder
	out     *syslogConn
}

var _ zapcore.Core = (*syslogCore)(nil)

func newSyslogCore(out *syslogConn, level zapcore.Level) *syslogCore {
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "msg", EncodeDuration: zapcore.StringDurationEncoder})
	return &syslogCore{LevelEnabler: level, encoder: encoder, out: out}
}

func (c *syslogCore) With(fields []zapcore.Field) zapcore.Core {
	clone := &syslogCore{LevelEnabler: c.LevelEnabler, encoder: c.encoder.Clone(), out: c.out}
	for _, f := range fields {
		f.AddTo(clone.encoder)
	}
	return clone
}

func (c *syslogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *syslogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	line, err := c.encoder.EncodeEntry(entry, fields)
	if err != nil {
		return err
	}
	c.out.send(severity(entry.Level), message.OneLine(line.String()))
	line.Free()
	return nil
}

func (c *syslogCore) Sync() error { return nil }

func severity(level zapcore.Level) syslog.Priority {
	switch {
	case level >= zapcore.ErrorLevel:
		return syslog.LOG_ERR
	case level == zapcore.WarnLevel:
		return syslog.LOG_WARNING
	case level == zapcore.InfoLevel:
		return syslog.LOG_INFO
	default:
		return syslog.LOG_DEBUG
	}
}
