// Package health serves what load balancers, probes and Prometheus ask of the daemon. Paths, codes and bodies are
// kube-proxy's.
package health

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kube-hop/kube-hop/metrics"
)

// State is what the handlers ask the daemon.
type State interface {
	// Healthy reports whether changes reach the kernel in time, and when it was last known to be up to date.
	Healthy() (healthy bool, updated time.Time)
	// Eligible reports whether load balancers should send traffic to this node: its Node is known and stays.
	Eligible() bool
	// Started reports whether the first sync is over.
	Started() bool
}

// answer is the body of /healthz and /livez.
type answer struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"`
	Status       map[string]familyStatus `json:"status,omitempty"`
}

type familyStatus struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// Handler serves /healthz, which also says whether the node is to get traffic, and /livez, which does not, since
// restarting the daemon would not change that.
func Handler(s State, m *metrics.Metrics, families []string, now func() time.Time) http.Handler {
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, a answer, ok bool) int {
		code := http.StatusServiceUnavailable
		if ok {
			code, a.LastUpdated = http.StatusOK, a.CurrentTime
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		body, _ := json.Marshal(a) // times and booleans: nothing that could fail
		_, _ = w.Write(body)       // the client has gone; nobody is left to tell
		return code
	}
	state := func() answer {
		healthy, updated := s.Healthy()
		a := answer{LastUpdated: updated, CurrentTime: now(), Healthy: healthy, Status: map[string]familyStatus{}}
		for _, f := range families {
			a.Status[f] = familyStatus{LastUpdated: updated, Healthy: healthy}
		}
		return a
	}
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		a, eligible := state(), s.Eligible()
		a.NodeEligible = &eligible
		m.Healthz.WithLabelValues(strconv.Itoa(write(w, a, a.Healthy && eligible && s.Started()))).Inc()
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) {
		a := state()
		m.Livez.WithLabelValues(strconv.Itoa(write(w, a, a.Healthy))).Inc()
	})
	return mux
}

// MetricsHandler serves /metrics, /healthz (always ok) and /proxyMode, and with profiling /debug/pprof.
func MetricsHandler(m *metrics.Metrics, mode string, profiling bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}))
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write([]byte(body)) // the client has gone; nobody is left to tell
		}
	}
	mux.HandleFunc("/healthz", text("ok"))
	mux.HandleFunc("/proxyMode", text(mode))
	if profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
