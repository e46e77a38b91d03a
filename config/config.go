// Package config holds the daemon's configuration as one value: defaults, then flags, checked once before anything
// touches the kernel, and handed down in parts.
package config

import (
	"net/netip"
	"time"

	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

// Config is a valid configuration. It comes from Flags.Config.
type Config struct {
	// From is a folder of YAML files that replaces the API server; empty for the API server.
	From string
	// Kubeconfig and Master say how to reach the API server; both empty means from inside a pod.
	Kubeconfig, Master string
	// QPS and Burst limit requests to the API server, requests per second.
	QPS   float32
	Burst int
	// ContentType of requests to the API server.
	ContentType string
	// Resync is the informers' resync period.
	Resync time.Duration

	// HealthAddr and MetricsAddr are where the servers listen; invalid means not at all.
	HealthAddr, MetricsAddr netip.AddrPort
	// Profiling serves /debug/pprof beside the metrics.
	Profiling bool

	// Estimation lets the kernel estimate rates for every virtual and real server.
	Estimation bool

	Timeouts  Timeouts
	Conntrack Conntrack
	Proxier   proxier.Config
}

// Timeouts are how long IPVS keeps idle connections; 0 says nothing of them. Whole seconds.
type Timeouts struct {
	TCP, TCPFin, UDP time.Duration
}

// Conntrack are the settings of connection tracking. A time of 0 says nothing of it; whole seconds.
type Conntrack struct {
	// MaxPerCore and Min say how many connections can be tracked at least; MaxPerCore 0 says nothing of it.
	MaxPerCore, Min int

	TCPEstablished, TCPCloseWait, UDP, UDPStream time.Duration
	// TCPBeLiberal tracks TCP segments outside of the window too.
	TCPBeLiberal bool
}

// Render is short for the part that rendering depends on.
func (c Config) Render() render.Config { return c.Proxier.Render }
