package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Proc is a process that runs in a host's namespace until it is stopped: a daemon under test.
type Proc struct {
	host *Host
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended
	err  error         // of its end; read after done
}

// Start runs a binary in the host's namespace; what it writes is appended to logfile. It is killed when ctx is done,
// when the bed is closed, and when this process dies.
func (h *Host) Start(ctx context.Context, binary string, args []string, logfile string) (*Proc, error) {
	log, err := os.OpenFile(logfile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("testbed: log of %s: %w", binary, err)
	}
	defer log.Close() // the process has its own
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &Proc{host: h, cmd: cmd, log: logfile, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// One thread from start to end, see Command.Run.
		p.err = h.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
		select { // the namespace could not be entered
		case started <- p.err:
		default:
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("testbed: start %s on %s: %w", binary, h.Name, err)
	}
	h.bed.own(p)
	return p, nil
}

// Pid returns the process id.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Proc) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d on %s: %w", p.Pid(), p.host.Name, err)
	}
	return nil
}

// Wait waits for the end of the process and returns how it ended: nil after exit status 0, else an *exec.ExitError.
func (p *Proc) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		p.host.bed.disown(p)
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("process %d on %s still runs: %w", p.Pid(), p.host.Name, context.Cause(ctx))
	}
}

// Stop sends sig, such as SIGTERM, and waits as [Proc.Wait] does.
func (p *Proc) Stop(ctx context.Context, sig os.Signal) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Kill ends the process at once, without a chance to tidy up, and waits for it.
func (p *Proc) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	p.host.bed.disown(p)
	return err
}

// Close is Kill, for [Bed.Close].
func (p *Proc) Close() error { return p.Kill() }

// Log returns the path of the log.
func (p *Proc) Log() string { return p.log }

// Tail returns the last n lines of the log.
func (p *Proc) Tail(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return string(bytes.Join(lines[max(0, len(lines)-n):], nil))
}
