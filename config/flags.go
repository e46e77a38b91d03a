package config

import (
	"time"

	"github.com/spf13/pflag"
)

// Flags is the command line as given: names, defaults and meaning follow kube-proxy where it has the flag too.
type Flags struct {
	From          string
	Kubeconfig    string
	Master        string
	QPS           float32
	Burst         int
	ContentType   string
	ConfigSync    time.Duration
	Hostname      string
	ProxyMode     string
	Scheduler     string
	ExcludeCIDRs  []string
	PortOnlyCIDRs []string
	SyncPeriod    time.Duration
	MinSync       time.Duration
	DrainTimeout  time.Duration

	Estimation    bool
	TCPTimeout    time.Duration
	TCPFinTimeout time.Duration
	UDPTimeout    time.Duration

	ConntrackMaxPerCore     int
	ConntrackMin            int
	ConntrackTCPEstablished time.Duration
	ConntrackTCPCloseWait   time.Duration
	ConntrackUDP            time.Duration
	ConntrackUDPStream      time.Duration
	ConntrackTCPBeLiberal   bool

	MasqueradeAll bool
	MasqueradeBit int

	NodePortAddresses  []string
	LocalhostNodePorts bool
	DetectLocalMode    string
	ClusterCIDR        string
	PodBridgeInterface string
	PodInterfacePrefix string

	HealthzBind string
	MetricsBind string
	Profiling   bool
}

// The modes of --detect-local-mode, as in kube-proxy.
const (
	DetectClusterCIDR = "ClusterCIDR"
	DetectNodeCIDR    = "NodeCIDR"
	DetectBridge      = "BridgeInterface"
	DetectPrefix      = "InterfaceNamePrefix"
)

// Add defines the flags.
func (f *Flags) Add(fs *pflag.FlagSet) {
	f.AddSource(fs)
	f.AddRender(fs)
	fs.StringVar(&f.Kubeconfig, "kubeconfig", "", "kubeconfig file; without it and --master the service account of the pod is used")
	fs.StringVar(&f.Master, "master", "", "URL of the API server, overrides the one in the kubeconfig")
	fs.Float32Var(&f.QPS, "kube-api-qps", 5, "requests per second to the API server")
	fs.IntVar(&f.Burst, "kube-api-burst", 10, "requests to the API server that may exceed --kube-api-qps for a moment")
	fs.StringVar(&f.ContentType, "kube-api-content-type", "application/vnd.kubernetes.protobuf", "content type of requests to the API server")
	fs.DurationVar(&f.ConfigSync, "config-sync-period", 15*time.Minute, "how often the informers' contents are gone through again; greater than 0")
	fs.StringSliceVar(&f.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, "CIDRs whose virtual servers are never deleted, unless kube-hop made them")
	fs.DurationVar(&f.SyncPeriod, "ipvs-sync-period", 30*time.Second, "how often the kernel is compared with what it should hold; greater than 0")
	fs.DurationVar(&f.MinSync, "ipvs-min-sync-period", 100*time.Millisecond, "least time between two syncs; a lone change is applied at once; 0 to --ipvs-sync-period")
	fs.DurationVar(&f.DrainTimeout, "ipvs-drain-timeout", 15*time.Minute, "how long established connections to a removed endpoint may go on; 0 cuts them at once")
	f.addTimeouts(fs)
	fs.StringVar(&f.HealthzBind, "healthz-bind-address", "0.0.0.0:10256", "IP or IP:port of /healthz and /livez; empty for no health server")
	fs.StringVar(&f.MetricsBind, "metrics-bind-address", "127.0.0.1:10249", "IP or IP:port of /metrics; empty for no metrics server")
	fs.BoolVar(&f.Profiling, "profiling", false, "serve /debug/pprof on the metrics address")
}

// addTimeouts defines the flags that say how long idle connections are kept, and how many.
func (f *Flags) addTimeouts(fs *pflag.FlagSet) {
	fs.DurationVar(&f.TCPTimeout, "ipvs-tcp-timeout", 0, "how long IPVS keeps an idle TCP connection; 0 for as long as connection tracking does")
	fs.DurationVar(&f.TCPFinTimeout, "ipvs-tcpfin-timeout", 0, "how long IPVS keeps a TCP connection that one side has closed; 0 for the kernel's value")
	fs.DurationVar(&f.UDPTimeout, "ipvs-udp-timeout", 0, "how long IPVS and connection tracking keep an idle UDP flow, at least; 0 for the kernel's values")
	fs.IntVar(&f.ConntrackMaxPerCore, "conntrack-max-per-core", 32768, "connections that can be tracked, for each processor; 0 leaves the limit alone")
	fs.IntVar(&f.ConntrackMin, "conntrack-min", 131072, "connections that can be tracked at least, whatever --conntrack-max-per-core is unless 0")
	fs.DurationVar(&f.ConntrackTCPEstablished, "conntrack-tcp-timeout-established", 24*time.Hour, "how long idle TCP connections are tracked; 0 for the kernel's value")
	fs.DurationVar(&f.ConntrackTCPCloseWait, "conntrack-tcp-timeout-close-wait", time.Hour, "how long TCP connections are tracked that the peer has closed; 0 for the kernel's value")
	fs.DurationVar(&f.ConntrackUDP, "conntrack-udp-timeout", 0, "how long UDP flows without answers are tracked; 0 for the kernel's value")
	fs.DurationVar(&f.ConntrackUDPStream, "conntrack-udp-timeout-stream", 0, "how long UDP flows with answers are tracked; 0 for the kernel's value")
	fs.BoolVar(&f.ConntrackTCPBeLiberal, "conntrack-tcp-be-liberal", false, "track TCP segments outside of the window too; never set back")
}

// AddSource defines the flags that name the source of objects and the node.
func (f *Flags) AddSource(fs *pflag.FlagSet) {
	fs.StringVar(&f.From, "from", "", "folder of Service, EndpointSlice, Node and ServiceCIDR YAML files to use in place of an API server")
	fs.StringVar(&f.Hostname, "hostname-override", "", "name of this Node; default is the host name")
}

// AddRender defines the flags on which the rendered state depends.
func (f *Flags) AddRender(fs *pflag.FlagSet) {
	fs.StringVar(&f.ProxyMode, "proxy-mode", "ipvs", "ipvs is the only mode so far")
	fs.BoolVar(&f.Estimation, "ipvs-estimation", true, "let the kernel estimate the rates that ipvsadm --rate shows, which costs time for every real server (Linux 6.2 or newer can do without; counters go on)")
	fs.StringVar(&f.Scheduler, "ipvs-scheduler", "rr", "IPVS scheduler of Services without annotation kube-hop.io/ipvs-scheduler")
	fs.BoolVar(&f.MasqueradeAll, "masquerade-all", false, "masquerade all traffic to ClusterIPs")
	fs.IntVar(&f.MasqueradeBit, "iptables-masquerade-bit", 14, "bit of the packet mark that asks for masquerading, 0 to 31")
	fs.StringSliceVar(&f.NodePortAddresses, "nodeport-addresses", nil, `CIDRs of the node addresses that answer on node ports, or "primary" for the node IPs; default is all addresses`)
	fs.StringSliceVar(&f.PortOnlyCIDRs, "port-only-cidrs", nil, "CIDRs of external and load balancer IPs that other hosts have too: nodes take only the Services' ports there, with a routing rule for each; the node's own networks are such CIDRs anyway")
	fs.BoolVar(&f.LocalhostNodePorts, "iptables-localhost-nodeports", true, "let node ports answer on 127.0.0.1 and ::1, to programs of the node alone, if --nodeport-addresses selects those")
	fs.StringVar(&f.DetectLocalMode, "detect-local-mode", DetectClusterCIDR, "how traffic of local pods is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
	fs.StringVar(&f.ClusterCIDR, "cluster-cidr", "", "pod range of the cluster, for dual stack one of each family separated by a comma")
	fs.StringVar(&f.PodBridgeInterface, "pod-bridge-interface", "", "bridge of the local pods, for --detect-local-mode=BridgeInterface")
	fs.StringVar(&f.PodInterfacePrefix, "pod-interface-name-prefix", "", "prefix of the local pods' interfaces, for --detect-local-mode=InterfaceNamePrefix")
}
