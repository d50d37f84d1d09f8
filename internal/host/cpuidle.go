package host

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IdlePollFile takes limits of the time that a CPU needs to wake up, in microseconds. A limit
// belongs to an open descriptor and ends with it (Documentation/power/pm_qos_interface.rst).
const IdlePollFile = "/dev/cpu_dma_latency"

// Limits for IdlePollFile.
const (
	noLatency  int32 = 0
	anyLatency int32 = 2_000_000_000 // PM_QOS_CPU_LATENCY_DEFAULT_VALUE of linux/pm_qos.h
)

// IdlePoll can keep this machine's idle CPUs awake. They then poll for work, so no thread waits for
// one to wake up.
type IdlePoll struct{ fd int }

// OpenIdlePoll opens IdlePollFile and sets no limit. EACCES: only root may open it.
func OpenIdlePoll() (*IdlePoll, error) {
	fd, err := unix.Open(IdlePollFile, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &IdlePoll{fd}, nil
}

// KeepAwake keeps idle CPUs awake until [IdlePoll.LetSleep] or [IdlePoll.Close].
func (p *IdlePoll) KeepAwake() error { return p.limit(noLatency) }

// LetSleep ends [IdlePoll.KeepAwake].
func (p *IdlePoll) LetSleep() error { return p.limit(anyLatency) }

func (p *IdlePoll) limit(latency int32) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(latency))
	return retry(func() error { _, err := unix.Write(p.fd, b[:]); return err })
}

// Close ends the limit.
func (p *IdlePoll) Close() { _ = unix.Close(p.fd) }

// PollsWhileIdle reports whether the CPUs are virtual ones that can poll while they are idle. The
// kernel uses the cpuidle driver haltpoll in guests of KVM that have CPUs of their own
// (KVM_HINTS_REALTIME), and where its parameter force is set.
func PollsWhileIdle() bool {
	driver, err := os.ReadFile("/sys/devices/system/cpu/cpuidle/current_driver")
	return err == nil && strings.TrimSpace(string(driver)) == "haltpoll"
}

// OnlineCPUs returns how many CPUs the machine has, which may be more than the process may use. 0:
// /sys does not have it.
func OnlineCPUs() int {
	list, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 0
	}
	return countCPUs(strings.TrimSpace(string(list)))
}

// countCPUs counts the CPUs of a list such as 0-3,6. 0: it is no such list.
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
