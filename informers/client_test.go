package informers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func TestNewClient(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, master string
		host         string // of the requests
		err          string // part of the message
	}{
		"kubeconfig":              {file: file, host: "192.0.2.1:6443"},
		"master":                  {master: "http://192.0.2.2:8080", host: "192.0.2.2:8080"},
		"master wins over server": {file: file, master: "https://192.0.2.3", host: "192.0.2.3"},
		"neither, not in a Pod":   {err: "--kubeconfig or --master"},
		"no such file":            {file: file + ".none", err: "check --kubeconfig"},
		"bad master":              {master: "http://[", err: "API client for"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := NewClient(c.file, c.master, 5, 10, "")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := client.CoreV1().RESTClient().Get().URL().Host; got != c.host {
				t.Errorf("host %q, want %q", got, c.host)
			}
		})
	}
}
