package fsx

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Serve is the helper process. It reads a folder and then operations from in, and makes them, until
// in ends.
func Serve(in io.Reader, out io.Writer) error {
	requests, w := gob.NewDecoder(bufio.NewReader(in)), bufio.NewWriter(out)
	replies := gob.NewEncoder(w)
	var dir string
	if err := requests.Decode(&dir); err != nil {
		return err
	}
	worker := newWorker(dir)
	defer worker.closeAll()
	for {
		var o op
		if err := requests.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		res := worker.do(&o)
		if err := replies.Encode(&res); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

// helper is the connection to another process.
type helper struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	requests *gob.Encoder
	replies  *gob.Decoder
}

// startHelper starts a process that calls Serve with its standard input and output.
func startHelper(dir string, cmd *exec.Cmd) (*helper, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &helper{cmd, in, gob.NewEncoder(in), gob.NewDecoder(bufio.NewReader(out))}
	return h, h.requests.Encode(dir)
}

// do makes the helper make an operation, and waits for it.
func (h *helper) do(o *op) result {
	if err := h.start(o); err != nil {
		return result{Fault: err.Error()}
	}
	return h.finish()
}

// start makes the helper begin an operation. finish must follow.
func (h *helper) start(o *op) error {
	if err := h.requests.Encode(o); err != nil {
		return fmt.Errorf("the helper process: %w", err)
	}
	return nil
}

// finish waits for the end of the operation.
func (h *helper) finish() (res result) {
	if err := h.replies.Decode(&res); err != nil {
		return result{Fault: "the helper process: " + err.Error()}
	}
	return res
}

// stop ends the process, and so closes all its files.
func (h *helper) stop() error {
	_ = h.in.Close()
	return h.cmd.Wait()
}

// kill ends the process without a warning. The kernel closes its files and mappings.
func (h *helper) kill() error {
	if err := h.cmd.Process.Kill(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := h.cmd.Wait(); !errors.As(err, &exit) {
		return fmt.Errorf("a killed helper process: %w", err)
	}
	return nil
}
