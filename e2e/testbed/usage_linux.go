package testbed

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat on every architecture that Go runs on.
const ticksPerSecond = 100

// Places of what CPU reads among the fields that follow the name: utime, stime, cutime and cstime, which
// proc_pid_stat(5) numbers 14 to 17.
const (
	firstTime = 14 - 3
	lastTime  = 17 - 3
)

// CPU returns the processor time that the process has used so far, of user and kernel, with that of the processes that
// it started and waited for: a daemon that leaves its work to commands pays for them here. It is exact to 10 ms.
func (p *Proc) CPU() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", p.Pid(), err)
	}
	ticks, err := parseTicks(string(text))
	if err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", p.Pid(), err)
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// parseTicks adds the times of a line of /proc/PID/stat.
func parseTicks(text string) (ticks int64, err error) {
	end := strings.LastIndex(text, ") ") // the name before may hold blanks and parentheses
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) <= lastTime {
		return 0, fmt.Errorf("not a line of /proc/PID/stat: %q", text)
	}
	var errs []error
	for _, f := range fields[firstTime : lastTime+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		ticks += n
		errs = append(errs, err)
	}
	return ticks, errors.Join(errs...)
}

// Memory returns how much memory of the process is resident now, and the most that was, in bytes. Processes that it
// started are not in it.
func (p *Proc) Memory() (resident, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of process %d: %w", p.Pid(), err)
	}
	resident, rerr := parseKilobytes(string(text), "VmRSS")
	peak, perr := parseKilobytes(string(text), "VmHWM")
	if err := errors.Join(rerr, perr); err != nil {
		return 0, 0, fmt.Errorf("memory of process %d: %w", p.Pid(), err)
	}
	return resident, peak, nil
}

// parseKilobytes returns a size of /proc/PID/status in bytes.
func parseKilobytes(text, field string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", field, err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s", field) // of a process that has ended and was not waited for
}
