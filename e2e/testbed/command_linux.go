package testbed

import (
	"bytes"
	"context"
	"os/exec"
	"syscall"
)

// Command is a process that runs in a host's namespace to its end. Set the fields of the embedded command first,
// then call Run, Output or CombinedOutput of this type; the embedded Start would run it in the namespace of the
// caller.
type Command struct {
	*exec.Cmd

	host *Host
}

// Command prepares a short-lived process. It dies with ctx, and with this process.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Command {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &Command{Cmd: cmd, host: h}
}

// Run starts the process and waits for its end. The thread stays in the namespace meanwhile, because the kernel
// sends the death signal when the thread ends that started the process.
func (c *Command) Run() error { return c.host.Do(c.Cmd.Run) }

// Output runs the process and returns its standard output.
func (c *Command) Output() (out []byte, err error) {
	err = c.host.Do(func() (err error) {
		out, err = c.Cmd.Output()
		return err
	})
	return out, err
}

// CombinedOutput runs the process and returns what it wrote to standard output and standard error.
func (c *Command) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
