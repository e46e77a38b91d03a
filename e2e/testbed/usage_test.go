package testbed

import "testing"

func TestParseTicks(t *testing.T) {
	const line = "4242 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4000 20 0 12 0 99\n"
	if got, err := parseTicks(line); err != nil || got != 4123 {
		t.Errorf("%d, %v; want user, kernel and those of ended children: 4123", got, err)
	}
	for _, bad := range []string{"", "4242 (a) S 1 2", "4242 (a) S 1 2 3 4 5 6 7 8 9 10 x 20 3 4000\n"} {
		if _, err := parseTicks(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseKilobytes(t *testing.T) {
	const status = "Name:\tVmRSS\nVmHWM:\t   95800 kB\nVmRSS:\t   70000 kB\n"
	if got, err := parseKilobytes(status, "VmRSS"); err != nil || got != 70000<<10 {
		t.Errorf("VmRSS %d, %v", got, err)
	}
	if _, err := parseKilobytes("State:\tZ (zombie)\n", "VmRSS"); err == nil {
		t.Error("a process without memory has a size")
	}
}
