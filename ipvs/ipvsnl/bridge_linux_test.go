package ipvsnl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBridgeSettings(t *testing.T) {
	for name, row := range map[string]struct {
		v4, v6 string // contents; empty for no file
		want   []string
	}{
		"right":            {"1\n", "1\n", nil},
		"off":              {"0\n", "0\n", []string{"bridge-nf-call-iptables=1", "bridge-nf-call-ip6tables=1"}},
		"one off":          {"1\n", "0\n", []string{"bridge-nf-call-ip6tables=1"}},
		"module not there": {"", "", []string{"modprobe br_netfilter", "modprobe br_netfilter"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range map[string]string{"iptables": row.v4, "ip6tables": row.v6} {
				path := filepath.Join(root, bridgeSysctls+file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if text == "" {
					continue
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			problems := bridgeSettings(root)
			if len(problems) != len(row.want) {
				t.Fatalf("%v, want %d problems", problems, len(row.want))
			}
			for i, p := range problems {
				if !strings.Contains(p.String(), row.want[i]) {
					t.Errorf("%q does not say %q", p, row.want[i])
				}
			}
		})
	}
}
