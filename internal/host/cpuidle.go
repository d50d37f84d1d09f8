package host

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IdlePollFile takes requests of how long a CPU may take to wake up (Documentation/power/pm_qos_interface.rst): one for each
// open descriptor, in force until it is closed, in microseconds.
const IdlePollFile = "/dev/cpu_dma_latency"

// Requests to IdlePollFile.
const (
	noLatency  int32 = 0
	anyLatency int32 = 2_000_000_000 // PM_QOS_CPU_LATENCY_DEFAULT_VALUE of linux/pm_qos.h
)

// IdlePoll keeps this machine's idle CPUs awake: they poll for work, so that nobody waits for one to wake up.
type IdlePoll struct{ fd int }

// OpenIdlePoll returns the means, which asks for nothing yet. EACCES to who may not: it is for root.
func OpenIdlePoll() (*IdlePoll, error) {
	fd, err := unix.Open(IdlePollFile, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &IdlePoll{fd}, nil
}

// Ask keeps idle CPUs awake, or no longer.
func (p *IdlePoll) Ask(awake bool) error {
	latency := anyLatency
	if awake {
		latency = noLatency
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(latency))
	return retry(func() error { _, err := unix.Write(p.fd, b[:]); return err })
}

// Close takes back what was asked for.
func (p *IdlePoll) Close() { _ = unix.Close(p.fd) }

// PollsWhileIdle reports whether the CPUs of this machine are virtual ones that can poll while they are idle: the cpuidle driver of
// guests of KVM says so by being there.
func PollsWhileIdle() bool {
	driver, err := os.ReadFile("/sys/devices/system/cpu/cpuidle/current_driver")
	return err == nil && strings.TrimSpace(string(driver)) == "haltpoll"
}

// OnlineCPUs is how many CPUs this machine has, of which the process may be allowed fewer; 0 where the kernel does not tell.
func OnlineCPUs() int {
	list, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 0
	}
	return countCPUs(strings.TrimSpace(string(list)))
}

// countCPUs counts a list such as 0-3,6.
func countCPUs(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}
