package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// foregroundLog goes to stderr, or to the file that was asked for.
func foregroundLog(req *request) (*zap.Logger, error) {
	if req.logFile != "" {
		return fileLog(req)
	}
	return newLog(req, zapcore.NewConsoleEncoder(logFields()), zapcore.Lock(os.Stderr)), nil
}

// daemonLog goes to the file that was asked for, or to the journal or syslog, or nowhere if the machine has neither:
// a container often has not, and that is no reason not to mount.
func daemonLog(req *request) (*zap.Logger, error) {
	if req.logFile != "" {
		return fileLog(req)
	}
	out, err := dialSyslog(syslogSocket, req.called)
	if err != nil {
		return zap.NewNop(), nil
	}
	return zap.New(newSyslogCore(out, logLevel(req))), nil
}

func fileLog(req *request) (*zap.Logger, error) {
	// Paths and names of all users go by here, so it is for the owner's eyes.
	f, err := os.OpenFile(req.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	// The trace of a crash would go to stderr, which a daemon has let go of.
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("cannot use %s for the log: %w", req.logFile, err)
	}
	return newLog(req, zapcore.NewJSONEncoder(logFields()), zapcore.Lock(f)), nil // a file is read by programs
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
