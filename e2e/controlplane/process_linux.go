package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// tailSize is how much of a log, in bytes, an error quotes: some 20 lines.
const tailSize = 4096

// command is what startProcess runs.
type command struct {
	name  string // for errors
	path  string // of the binary
	args  []string
	dir   string // working folder
	log   string // file that output is appended to
	netns string // name of the network namespace; "" is the caller's
}

// process is a running child. A goroutine of its own waits for it.
type process struct {
	cmd  command
	exec *exec.Cmd
	done chan struct{} // closed when the child is gone
	err  error         // how it ended; read it only after done is closed
}

// startProcess runs cmd until it ends, is killed, or ctx ends, in which case it is killed too.
func startProcess(ctx context.Context, cmd command) (*process, error) {
	log, err := os.OpenFile(cmd.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", cmd.name, err)
	}
	p := &process{cmd: cmd, exec: exec.CommandContext(ctx, cmd.path, cmd.args...), done: make(chan struct{})}
	p.exec.Dir = cmd.dir
	p.exec.Stdout, p.exec.Stderr = log, log
	p.exec.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go p.run(started)
	err = <-started
	// The child has its own copy.
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.name, err)
	}
	return p, nil
}

// run starts the child, tells started how that went, and waits for its end. It does both on one thread in the
// child's namespace: the kernel sends Pdeathsig when the thread that forked ends, and not only the process.
func (p *process) run(started chan<- error) {
	err := inNetns(p.cmd.netns, func() error {
		if err := p.exec.Start(); err != nil {
			return err
		}
		started <- nil
		p.err = p.exec.Wait()
		close(p.done)
		return nil
	})
	if p.exec.Process == nil {
		started <- err
	}
}

// kill ends the child and returns when it is gone. A child that has ended already is fine.
func (p *process) kill() {
	// The only other error, for lack of permission, cannot meet a child that runs as the same user.
	_ = p.exec.Process.Kill()
	<-p.done
}

// ended describes the end of a child that should still be running. Call it after done is closed.
func (p *process) ended() error {
	if p.err == nil {
		return fmt.Errorf("%s ended with status 0%s", p.cmd.name, p.tail())
	}
	return fmt.Errorf("%s ended: %w%s", p.cmd.name, p.err, p.tail())
}

// tail returns the last lines of the log, as the end of an error text.
func (p *process) tail() string {
	log, err := os.ReadFile(p.cmd.log)
	if err != nil {
		return fmt.Sprintf("; no log: %v", err)
	}
	if cut := len(log) - tailSize; cut > 0 {
		log = log[cut:]
		log = log[bytes.IndexByte(log, '\n')+1:] // not from the middle of a line
	}
	return fmt.Sprintf("; end of %s:\n%s", p.cmd.log, log)
}
