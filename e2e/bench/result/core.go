package result

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Core is what the Go benchmark of the core says: objects to operations, without a kernel, on the machine itself.
type Core struct {
	Services  int
	PerSecond float64 // Services that become operations in a second on one processor
	Allocs    float64 // allocations for each Service
}

// The targets of the core.
const (
	corePerSecond = 100_000
	coreAllocs    = 40
)

// ReadCore reads the output of go test -bench. Of several lines of one size the last one counts.
func ReadCore(r io.Reader) ([]Core, error) {
	var out []Core
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "BenchmarkInitial/services=")
		if !ok {
			continue
		}
		c, err := parseCore(rest)
		if err != nil {
			return nil, fmt.Errorf("benchmark of the core: %q: %w", lines.Text(), err)
		}
		if len(out) > 0 && out[len(out)-1].Services == c.Services {
			out = out[:len(out)-1]
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("benchmark of the core: %w", err)
	}
	return out, nil
}

// parseCore reads a line such as "1000-2 91 12690604 ns/op 78806 services/s 6500000 B/op 30000 allocs/op".
func parseCore(line string) (c Core, err error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return c, io.ErrUnexpectedEOF
	}
	size, _, _ := strings.Cut(fields[0], "-")
	if c.Services, err = strconv.Atoi(size); err != nil {
		return c, err
	}
	for i := 3; i < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i-1], 64)
		if err != nil {
			return c, err
		}
		switch fields[i] {
		case "services/s":
			c.PerSecond = v
		case "allocs/op":
			c.Allocs = v / float64(c.Services)
		}
	}
	return c, nil
}

// writeCore compares the core with its targets.
func writeCore(out *strings.Builder, core []Core) {
	if len(core) == 0 {
		return
	}
	out.WriteString("\n## Core alone\n\nObjects to operations, without a kernel, on the machine itself and not in a guest.\n\n" +
		"| Services | Services a second, at least 100,000 | allocations a Service, at most 40 |\n|---:|---:|---:|\n")
	for _, c := range core {
		fmt.Fprintf(out, "| %s | %s (%s) | %s (%s) |\n", thousands(c.Services),
			outcome(c.PerSecond >= corePerSecond), thousands(int(c.PerSecond)), outcome(c.Allocs <= coreAllocs), digits(c.Allocs))
	}
}
