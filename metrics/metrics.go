// Package metrics holds every metric of the daemon: name, help, unit and buckets. Names that start with kubeproxy_
// are kube-proxy's, so that existing dashboards and alerts go on working; names that start with kubehop_ are ours.
// No metric has a label per Service.
package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is the daemon's metrics and the registry that serves them.
type Metrics struct {
	Registry *prometheus.Registry

	// SyncDuration is in seconds, failed syncs included; label ip_family.
	SyncDuration *prometheus.HistogramVec
	// LastSync and LastQueued are in seconds since 1970; label ip_family.
	LastSync, LastQueued *prometheus.GaugeVec
	// Programming is in seconds, from a change of endpoints to the kernel; label ip_family.
	Programming *prometheus.HistogramVec
	// NoLocal is the number of Services with policy Local whose endpoints are all elsewhere; labels traffic_policy
	// (internal, external) and ip_family.
	NoLocal *prometheus.GaugeVec
	// ServiceChanges and EndpointChanges count events that changed something and were applied; those not yet applied are asked for,
	// see Pending.
	ServiceChanges, EndpointChanges prometheus.Counter

	// Operations counts kernel operations by kind ("add real server", "set add", ...) and result (ok, failed).
	Operations *prometheus.CounterVec
	// Repairs counts repaired drift by what had drifted: ipvs, vip, set, rules, sysctl.
	Repairs *prometheus.CounterVec
	// Services is the number of Services with a frontend; Failing the number of frontends and addresses that are
	// not programmed as they should be and are being retried.
	Services, Failing prometheus.Gauge
	// Draining is the number of real servers at weight 0 that wait for their connections to end.
	Draining prometheus.Gauge
	// FlowSyncDuration is the time of one cleanup of stale flows in seconds, failed ones included; FlowsDeleted
	// counts the connection tracking entries that it deleted; label ip_family.
	FlowSyncDuration *prometheus.HistogramVec
	FlowsDeleted     *prometheus.CounterVec
	// Problems counts objects or fields that were ignored because their value is not allowed.
	Problems prometheus.Counter
	// Conflicts is the number of frontends found claimed by more than one Service.
	Conflicts prometheus.Counter

	// Healthz and Livez count the answers of the health server; label code.
	Healthz, Livez *prometheus.CounterVec
}

// New returns the metrics in a registry of their own.
func New() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		SyncDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "Time of one sync of Services and endpoints to the kernel.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"ip_family"}),
		LastSync:   gaugeVec("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "Time of the last successful sync.", "ip_family"),
		LastQueued: gaugeVec("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "Time at which a sync was last asked for.", "ip_family"),
		FlowSyncDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubeproxy_conntrack_reconciler_sync_duration_seconds", Help: "Time of one cleanup of stale flows in the connection tracking table.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"ip_family"}),
		FlowsDeleted: counterVec("kubeproxy_conntrack_reconciler_deleted_entries_total", "Stale entries deleted from the connection tracking table.", "ip_family"),
		Programming: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubeproxy_network_programming_duration_seconds", Help: "Time from a change of endpoints to the kernel.",
			Buckets: slices.Concat([]float64{0.25, 0.5}, prometheus.LinearBuckets(1, 1, 59), prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7)),
		}, []string{"ip_family"}),
		NoLocal:         gaugeVec("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "Services with a Local traffic policy and endpoints, but none on this node.", "traffic_policy", "ip_family"),
		ServiceChanges:  counter("kubeproxy_sync_proxy_rules_service_changes_total", "Service changes seen."),
		EndpointChanges: counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "EndpointSlice changes seen."),
		Operations:      counterVec("kubehop_kernel_operations_total", "Operations on IPVS, routes and sets.", "operation", "result"),
		Repairs:         counterVec("kubehop_drift_repairs_total", "Kernel objects that others had changed or removed and that were put right.", "kind"),
		Services:        gauge("kubehop_services", "Services with at least one frontend."),
		Failing:         gauge("kubehop_failing_objects", "Frontends and addresses that could not be programmed and are being retried."),
		Draining:        gauge("kubehop_draining_real_servers", "Real servers at weight 0 whose connections have not ended."),
		Problems:        counter("kubehop_object_problems_total", "Objects or fields ignored because of a value that is not allowed."),
		Conflicts:       counter("kubehop_frontend_conflicts_total", "Frontends found claimed by more than one Service."),
		Healthz:         counterVec("kubeproxy_proxy_healthz_total", "Answers of /healthz.", "code"),
		Livez:           counterVec("kubeproxy_proxy_livez_total", "Answers of /livez.", "code"),
	}
	m.Registry.MustRegister(m.SyncDuration, m.LastSync, m.LastQueued, m.ServiceChanges, m.EndpointChanges,
		m.Programming, m.NoLocal, m.Operations, m.Repairs, m.Services, m.Failing, m.Draining, m.FlowSyncDuration, m.FlowsDeleted,
		m.Problems, m.Conflicts, m.Healthz, m.Livez,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Pending serves the numbers of changes that wait to be applied, as they are when somebody asks.
func (m *Metrics) Pending(services, endpoints func() int) {
	for name, p := range map[string]struct {
		help string
		ask  func() int
	}{
		"service":  {"Service changes seen and not yet applied.", services},
		"endpoint": {"EndpointSlice changes seen and not yet applied.", endpoints},
	} {
		m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_" + name + "_changes_pending", Help: p.help,
		}, func() float64 { return float64(p.ask()) }))
	}
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}
