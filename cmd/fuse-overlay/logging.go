package main

import (
	"fmt"
	"os"
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
