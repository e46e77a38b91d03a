package health

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kube-hop/kube-hop/metrics"
)

// state is a daemon's state.
type state struct{ healthy, eligible, started bool }

func (s state) Healthy() (bool, time.Time) { return s.healthy, time.Unix(1000, 0).UTC() }
func (s state) Eligible() bool             { return s.eligible }
func (s state) Started() bool              { return s.started }

// TestCodes follows section 7.1 of the service semantics: /livez does not look at the node, and a tainted node's
// daemon still calls itself healthy.
func TestCodes(t *testing.T) {
	now := time.Unix(2000, 0).UTC()
	for _, tc := range []struct {
		name           string
		s              state
		healthz, livez int
	}{
		{"all well", state{true, true, true}, 200, 200},
		{"node is leaving", state{true, false, true}, 503, 200},
		{"first sync not over", state{true, true, false}, 503, 200},
		{"change waits too long", state{false, true, true}, 503, 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := Handler(tc.s, metrics.New(), []string{"IPv4"}, func() time.Time { return now })
			for path, want := range map[string]int{"/healthz": tc.healthz, "/livez": tc.livez, "/other": 404} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != want {
					t.Errorf("%s answers %d, want %d", path, w.Code, want)
				}
				if path == "/healthz" {
					checkBody(t, w.Body, tc.s, want == 200, now)
				}
			}
		})
	}
}

func checkBody(t *testing.T, body io.Reader, s state, ok bool, now time.Time) {
	t.Helper()
	var got struct {
		LastUpdated  time.Time `json:"lastUpdated"`
		CurrentTime  time.Time `json:"currentTime"`
		NodeEligible *bool     `json:"nodeEligible"`
		Healthy      bool      `json:"healthy"`
	}
	if err := json.NewDecoder(body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	updated := time.Unix(1000, 0).UTC()
	if ok {
		updated = now
	}
	if !got.LastUpdated.Equal(updated) || !got.CurrentTime.Equal(now) || got.Healthy != s.healthy || got.NodeEligible == nil || *got.NodeEligible != s.eligible {
		t.Errorf("body is %+v for %+v", got, s)
	}
}

func TestMetricsServer(t *testing.T) {
	for _, tc := range []struct {
		path      string
		profiling bool
		code      int
		body      string
	}{
		{"/proxyMode", false, 200, "ipvs"},
		{"/healthz", false, 200, "ok"},
		{"/metrics", false, 200, ""},
		{"/debug/pprof/", false, 404, ""},
		{"/debug/pprof/", true, 200, ""},
	} {
		w := httptest.NewRecorder()
		MetricsHandler(metrics.New(), "ipvs", tc.profiling).ServeHTTP(w, httptest.NewRequest("GET", tc.path, nil))
		if w.Code != tc.code || tc.body != "" && w.Body.String() != tc.body {
			t.Errorf("%s (profiling %v) answers %d %q, want %d %q", tc.path, tc.profiling, w.Code, w.Body, tc.code, tc.body)
		}
	}
}
