//go:build !amd64 && !arm64

package host

import "golang.org/x/sys/unix"

// CanSupervise is whether supervisors are built for this CPU.
const CanSupervise = false

// KeptBits is how many descriptors a supervisor could keep.
const KeptBits = 1 << 20

// SupervisorConfig is what a supervisor needs.
type SupervisorConfig struct {
	Memory                           *SharedMemory
	Ended, Serving, NewProgram, Kept int
	Token                            uint32
	Program                          *Program
}

// Program is an executable file.
type Program struct{}

// OpenProgram is not built for this CPU.
func OpenProgram() (*Program, error) { return nil, unix.ENOSYS }

// Descriptors returns none.
func (p *Program) Descriptors() (file, dir int, name string) { return -1, -1, "" }

// InheritProgram is not built for this CPU.
func InheritProgram(int, int, string) *Program { return &Program{} }

// Inherited returns nil: this process is the first worker.
func Inherited() (*SharedMemory, *ReadyPipe, error) { return nil, nil, nil }

// ReadyPipe is where a new worker reports to the supervisor that has started it.
type ReadyPipe struct{}

// Report is not built for this CPU.
func (p *ReadyPipe) Report() error { return unix.ENOSYS }

// Supervisor is a running supervisor.
type Supervisor struct{}

// StartSupervisor is not built for this CPU.
func StartSupervisor([]string, SupervisorConfig) (*Supervisor, error) { return nil, unix.ENOSYS }

// Wait is not built for this CPU.
func (s *Supervisor) Wait() {}
