package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// foregroundLog goes to stderr, or to the file of option log.
func foregroundLog(req *request) (*zap.Logger, error) {
	if req.logFile != "" {
		return fileLog(req)
	}
	return newLog(req, zapcore.NewConsoleEncoder(logFields()), zapcore.Lock(os.Stderr)), nil
}

// daemonLog goes to the file of option log, or to the journal or syslog. If the machine has
// neither, as a container often, it goes nowhere.
func daemonLog(req *request) (*zap.Logger, error) {
	if req.logFile != "" {
		return fileLog(req)
	}
	out, err := dialSyslog(syslogSocket, req.called)
	if err != nil {
		return zap.NewNop(), nil
	}
	req.syslog = out
	if out.dir != nil {
		req.logTo = logTarget{Known: true, Descriptor: int(out.dir.Fd()), Name: filepath.Base(out.path)}
	}
	return zap.New(newSyslogCore(out, logLevel(req))), nil
}

func fileLog(req *request) (*zap.Logger, error) {
	// The log contains names of files of all users, so only its owner may read it.
	f, err := os.OpenFile(req.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	// The trace of a crash would go to stderr, which a daemon has closed.
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("cannot use %s for the log: %w", req.logFile, err)
	}
	req.logTo = logTarget{Known: true, Descriptor: int(f.Fd())}
	return newLog(req, zapcore.NewJSONEncoder(logFields()), zapcore.Lock(f)), nil // a file is read by programs
}

// logTarget is what a process needs to go on with the log of the one before.
type logTarget struct {
	Known      bool
	Descriptor int    // of the file, or of the directory that holds the socket
	Name       string // of the socket; empty: it is a file
}

// inheritedLog is daemonLog for a process that takes over a mount.
func inheritedLog(req *request, to logTarget) *zap.Logger {
	switch {
	case !to.Known:
		return zap.NewNop()
	case to.Name == "":
		f := os.NewFile(uintptr(to.Descriptor), "log")
		_ = debug.SetCrashOutput(f, debug.CrashOptions{}) // the log works without
		return newLog(req, zapcore.NewJSONEncoder(logFields()), zapcore.Lock(f))
	}
	out := &syslogConn{
		path: fmt.Sprintf("/proc/thread-self/fd/%d/%s", to.Descriptor, to.Name), tag: req.called,
		dir: os.NewFile(uintptr(to.Descriptor), "directory of the log"),
	}
	return zap.New(newSyslogCore(out, logLevel(req)))
}

func newLog(req *request, encoder zapcore.Encoder, out zapcore.WriteSyncer) *zap.Logger {
	return zap.New(zapcore.NewCore(encoder, out, logLevel(req)))
}

func logFields() zapcore.EncoderConfig {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339TimeEncoder
	config.EncodeLevel = zapcore.CapitalLevelEncoder
	return config
}

func logLevel(req *request) zapcore.Level {
	if req.mount.Debug {
		return zapcore.DebugLevel
	}
	return zapcore.InfoLevel
}
