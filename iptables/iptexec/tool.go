package iptexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/kube-hop/kube-hop/iptables"
)

// lockWait is how long iptables-restore waits for the xtables lock, in seconds. The nf_tables variant has no lock
// and ignores it. After that the caller retries, and other families and tables have had their turn.
const lockWait = 5

// tool is the programs of one family.
type tool struct {
	name            string // iptables or ip6tables, with the variant if a certain one was asked for
	savePath        string
	restorePath     string
	lockWaitSeconds int
	randomFully     bool
}

func findTool(family iptables.Family, variant string) (tool, error) {
	t := tool{name: "iptables", lockWaitSeconds: lockWait}
	proto := goiptables.ProtocolIPv4
	if family == iptables.IPv6 {
		t.name, proto = "ip6tables", goiptables.ProtocolIPv6
	}
	if variant != "" {
		t.name += "-" + variant
	}
	ipt, err := goiptables.New(goiptables.IPFamily(proto), goiptables.Path(t.name))
	if err != nil {
		return tool{}, notFound(t.name, err)
	}
	if t.savePath, err = exec.LookPath(t.name + "-save"); err != nil {
		return tool{}, notFound(t.name+"-save", err)
	}
	if t.restorePath, err = exec.LookPath(t.name + "-restore"); err != nil {
		return tool{}, notFound(t.name+"-restore", err)
	}
	// iptables-restore waits for the lock since this version; the ones before fail at once or, worse, do not look.
	major, minor, patch := ipt.GetIptablesVersion()
	if older([3]int{major, minor, patch}, [3]int{1, 6, 2}) {
		return tool{}, fmt.Errorf("%s: version %d.%d.%d is too old, 1.6.2 is needed", t.name, major, minor, patch)
	}
	t.randomFully = ipt.HasRandomFully()
	return t, nil
}

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func notFound(program string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed (package iptables has it): %w", program, exec.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", program, err)
}

// save returns the state of all tables. The tables that matter must be readable.
func (t tool) save(ctx context.Context, matter []string) (iptables.RuleState, error) {
	out, stderr, err := run(ctx, t.savePath, "")
	if err != nil {
		return nil, fmt.Errorf("%s-save: %w", t.name, err)
	}
	for _, table := range matter {
		if incompatible(out+stderr, table) {
			return nil, fmt.Errorf("%s-save: table %s holds rules of the nft program that iptables cannot show", t.name, table)
		}
	}
	state, err := iptables.ParseSave(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return state, nil
}

// incompatible tells that iptables-save left out a table. It exits with 0 all the same, and taking the table for
// empty would make Apply write everything again each time.
func incompatible(output, table string) bool {
	return strings.Contains(output, "# Table `"+table+"' is incompatible")
}

func (t tool) restore(ctx context.Context, table, text string) error {
	_, _, err := run(ctx, t.restorePath, text, "--noflush", "-w", strconv.Itoa(t.lockWaitSeconds))
	if err != nil {
		return fmt.Errorf("%s-restore: table %s: %w", t.name, table, err)
	}
	return nil
}

// killWait is how long a program that was killed may keep its output open.
const killWait = time.Second

func run(ctx context.Context, path, stdin string, args ...string) (stdout, stderr string, err error) {
	if err := ctx.Err(); err != nil {
		return "", "", err
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	cmd.WaitDelay = killWait
	if err := cmd.Run(); err != nil {
		return "", "", failure(ctx, err, errOut.String(), stdin)
	}
	return out.String(), errOut.String(), nil
}

// failure puts what the program said, in one line, with the line of input that it complains about.
func failure(ctx context.Context, err error, said, input string) error {
	if ctx.Err() != nil { // it was killed, and "signal: killed" does not say why
		return ctx.Err()
	}
	said = strings.Join(strings.Fields(said), " ")
	// Exit status 4 is also that of other failures, so the text has to tell (struct xtables_lock in xshared.c).
	if strings.Contains(said, "xtables lock") {
		return fmt.Errorf("%w: %w: %s", iptables.ErrLocked, err, said)
	}
	if line := complaint(said, input); line != "" {
		return fmt.Errorf("%w: %s: %q", err, said, line)
	}
	return fmt.Errorf("%w: %s", err, said)
}

// complaint returns the line of input that a message such as "line 3 failed" or "line: 3" is about, or "".
func complaint(said, input string) string {
	lines := strings.Split(input, "\n")
	words := strings.FieldsFunc(said, func(r rune) bool { return r == ' ' || r == ':' })
	for i := 1; i < len(words); i++ {
		n, err := strconv.Atoi(words[i])
		if words[i-1] == "line" && err == nil && n >= 1 && n <= len(lines) {
			return lines[n-1]
		}
	}
	return ""
}
