//go:build e2e && linux

package suite

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestHealthAndMetrics: the servers answer as kube-proxy's do.
func TestHealthAndMetrics(t *testing.T) {
	c := shared(t)
	n1 := c.nodes[0]
	c.settle(t)
	for _, row := range []struct {
		path  string
		wants []string // keys of the answer
	}{
		{"/healthz", []string{"lastUpdated", "currentTime", "nodeEligible", "healthy", "status"}},
		{"/livez", []string{"lastUpdated", "currentTime", "healthy", "status"}},
	} {
		code, body, err := n1.get(healthURL + row.path)
		if err != nil || code != http.StatusOK {
			t.Errorf("%s: %d, %v", row.path, code, err)
			continue
		}
		answer := map[string]any{}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Errorf("%s: %v: %s", row.path, err, body)
		}
		for _, k := range row.wants {
			if _, ok := answer[k]; !ok || len(answer) != len(row.wants) {
				t.Errorf("%s: %s, want the keys %v", row.path, body, row.wants)
			}
		}
	}
	if code, _, err := n1.get(healthURL + "/nothing"); err != nil || code != http.StatusNotFound {
		t.Errorf("unknown path: %d, %v, want 404", code, err)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/proxyMode": "ipvs"} {
		if code, body, err := n1.get(metricsURL + path); err != nil || code != http.StatusOK || body != want {
			t.Errorf("metrics server %s: %d, %q, %v; want %q", path, code, body, err, want)
		}
	}
	checkMetricNames(t, n1)
	// Load balancers probe the health port from outside; metrics are for the node alone.
	if resp, err := c.Out.HTTP().Get("http://" + c.N1.Addr4.String() + ":10256/healthz"); err != nil {
		t.Error("health port from outside: ", err)
	} else {
		_ = resp.Body.Close()
	}
	if resp, err := c.Out.HTTP().Get("http://" + c.N1.Addr4.String() + ":10249/metrics"); err == nil {
		_ = resp.Body.Close()
		t.Error("metrics answer outside the node")
	}
}

func checkMetricNames(t *testing.T, n *node) {
	t.Helper()
	_, body, err := n.get(metricsURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}`,
		`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"}`,
		`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}`,
		`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}`,
		"kubeproxy_sync_proxy_rules_service_changes_total", "kubeproxy_sync_proxy_rules_service_changes_pending 0",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total", "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
		`kubeproxy_proxy_healthz_total{code="200"}`, `kubeproxy_proxy_livez_total{code="200"}`,
		`kubehop_kernel_operations_total{operation="add virtual server",result="ok"}`,
		"kubehop_services", "kubehop_failing_objects 0", "kubehop_draining_real_servers",
		"kubehop_object_problems_total", "kubehop_frontend_conflicts_total", "go_goroutines", "process_start_time_seconds",
	} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
}
