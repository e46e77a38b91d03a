package result

import (
	"slices"
	"strconv"
	"strings"
)

// The figures. What each is, is said by its title in Figures.
const (
	FloorSingle        = "floor-single"
	FloorBatch         = "floor-batch"
	WatchStart         = "watch-start"
	WatchStartCPU      = "watch-start-cpu"
	WatchStartPeak     = "watch-start-peak"
	WatchChurnCPU      = "watch-churn-cpu"
	WatchLateP50       = "watch-late-p50"
	WatchLateP99       = "watch-late-p99"
	SyncTotal          = "sync-total"
	SyncOwn            = "sync-own"
	SyncCPU            = "sync-cpu"
	SyncPeak           = "sync-peak"
	RestartTotal       = "restart-total"
	RestartOwn         = "restart-own"
	RestartOperations  = "restart-operations"
	RestartCommits     = "restart-commits"
	ChangeP50          = "change-p50"
	ChangeP99          = "change-p99"
	DeliveryP50        = "delivery-p50"
	DeliveryP99        = "delivery-p99"
	BeyondP50          = "beyond-p50"
	BeyondP99          = "beyond-p99"
	OwnP50             = "own-p50"
	OwnP99             = "own-p99"
	OwnBareP50         = "own-bare-p50"
	OwnBareP99         = "own-bare-p99"
	ChangeCPU          = "change-cpu"
	BurstTotal         = "burst-total"
	BurstBeyond        = "burst-beyond"
	ChurnP50           = "churn-p50"
	ChurnP99           = "churn-p99"
	ChurnRate          = "churn-rate"
	ChurnCPU           = "churn-cpu"
	IdleCPU            = "idle-cpu"
	MemoryResident     = "memory-resident"
	MemoryPeak         = "memory-peak"
	ConnectDirect      = "connect-direct"
	ConnectBareIPVS    = "connect-bare-ipvs"
	ConnectTrackedIPVS = "connect-tracked-ipvs"
	ConnectBareNFT     = "connect-bare-nft"
	ConnectP50         = "connect-p50"
	ConnectP99         = "connect-p99"
	ConnectRate        = "connect-rate"
	ConnectRateDirect  = "connect-rate-direct"
	RequestDirect      = "request-direct"
	RequestP50         = "request-p50"
	RequestP99         = "request-p99"
)

// Counted is what the figure of a time ends in where instructions are counted instead, in a guest whose clock goes by them: each
// takes a nanosecond. They are all that the node's only processor runs until the answer is there, for both ends and the
// kernel between them; if it had nothing to do meanwhile, that would count too.
const Counted = "-counted"

// Figure is something that is measured.
type Figure struct {
	ID, Title, Unit string
	// Higher says that more is better; else less is.
	Higher bool
	// Plain figures are not compared between subjects: they say what the machine does.
	Plain bool
}

// Figures returns all figures in the order of the tables.
func Figures() []Figure {
	countable := []string{ConnectDirect, ConnectBareIPVS, ConnectTrackedIPVS, ConnectBareNFT, ConnectP50, RequestDirect, RequestP50}
	all := timed()
	for _, f := range all {
		if slices.Contains(countable, f.ID) {
			f.ID, f.Title, f.Unit = f.ID+Counted, "instructions: "+f.Title, "thousand"
			all = append(all, f)
		}
	}
	return all
}

// timed returns the figures that are not counted.
func timed() []Figure {
	return []Figure{
		{ID: FloorSingle, Title: "floor: kube-hop's IPVS objects and set entries by bare netlink, one request each", Unit: "s", Plain: true},
		{ID: FloorBatch, Title: "floor: the same and its nf_tables elements, many requests in one system call", Unit: "s", Plain: true},
		{ID: WatchStart, Title: "floor: start of a process that only hears of all objects, by the same informers", Unit: "s", Plain: true},
		{ID: WatchStartCPU, Title: "processor time of that", Unit: "s", Plain: true},
		{ID: WatchStartPeak, Title: "peak resident memory of that", Unit: "MiB", Plain: true},
		{ID: SyncTotal, Title: "start on an empty kernel until all is in it", Unit: "s"},
		{ID: SyncOwn, Title: "of that, in syncs: from having all objects to the last kernel write", Unit: "s"},
		{ID: SyncCPU, Title: "processor time of the start", Unit: "s"},
		{ID: SyncPeak, Title: "peak resident memory of the start", Unit: "MiB"},
		{ID: RestartTotal, Title: "start with everything in place until in sync", Unit: "s"},
		{ID: RestartOwn, Title: "of that, in syncs: reading what is there, and what is to be done about it", Unit: "s"},
		{ID: RestartOperations, Title: "kernel operations of that start, as the daemon counts", Unit: ""},
		{ID: RestartCommits, Title: "changes of nf_tables in that start, as the kernel counts", Unit: ""},
		{ID: ChangeP50, Title: "one endpoint replaced, from the API request to the kernel: p50", Unit: "ms"},
		{ID: ChangeP99, Title: same + "p99", Unit: "ms"},
		{ID: DeliveryP50, Title: "from the API request until any watcher hears of it: p50", Unit: "ms", Plain: true},
		{ID: DeliveryP99, Title: same + "p99", Unit: "ms", Plain: true},
		{ID: BeyondP50, Title: "to the kernel, beyond that delivery: p50", Unit: "ms"},
		{ID: BeyondP99, Title: same + "p99", Unit: "ms"},
		{ID: OwnP50, Title: "the daemon's own share, its sync: p50", Unit: "ms"},
		{ID: OwnP99, Title: same + "p99", Unit: "ms"},
		{ID: OwnBareP50, Title: "floor: two bare requests to IPVS when a watcher has heard of a change: p50", Unit: "ms", Plain: true},
		{ID: OwnBareP99, Title: same + "p99", Unit: "ms", Plain: true},
		{ID: ChangeCPU, Title: "the daemon's processor time for one such change, all that goes on meanwhile included, but for its metrics being asked", Unit: "ms"},
		{ID: BurstTotal, Title: "burst of changes, from the first request until all are in the kernel", Unit: "s"},
		{ID: BurstBeyond, Title: "of that, after any watcher has heard of the last one", Unit: "s"},
		{ID: ChurnP50, Title: "steady changes, how stale the kernel is beyond delivery: p50", Unit: "ms"},
		{ID: ChurnP99, Title: same + "p99", Unit: "ms"},
		{ID: ChurnRate, Title: "changes a second that were made", Unit: "/s", Plain: true},
		{ID: ChurnCPU, Title: "processor time of those changes, a thousand of them", Unit: "s"},
		{ID: WatchChurnCPU, Title: "floor: processor time of a process that only hears of such changes, a thousand of them", Unit: "s", Plain: true},
		{ID: WatchLateP50, Title: "floor: how much later than another watcher that process hears of such a change: p50", Unit: "ms", Plain: true},
		{ID: WatchLateP99, Title: same + "p99", Unit: "ms", Plain: true},
		{ID: IdleCPU, Title: "idle, verification included: share of one processor", Unit: "%"},
		{ID: MemoryResident, Title: "resident memory in the end", Unit: "MiB"},
		{ID: MemoryPeak, Title: "peak resident memory from the restart to the end", Unit: "MiB"},
		{ID: ConnectDirect, Title: "new connection and first answer, straight to the pod: p50", Unit: "ms", Plain: true},
		{ID: ConnectBareIPVS, Title: "floor: a virtual server and nothing else, connections not tracked: p50", Unit: "ms", Plain: true},
		{ID: ConnectTrackedIPVS, Title: "floor: a virtual server, connections tracked and one rule for masquerading: p50", Unit: "ms", Plain: true},
		{ID: ConnectBareNFT, Title: "floor: one rule of nf_tables with the destination, and one for masquerading: p50", Unit: "ms", Plain: true},
		{ID: ConnectP50, Title: "new connection and first answer through a ClusterIP: p50", Unit: "ms"},
		{ID: ConnectP99, Title: same + "p99", Unit: "ms"},
		{ID: ConnectRateDirect, Title: "new connections a second straight to the pod, several clients", Unit: "/s", Higher: true, Plain: true},
		{ID: ConnectRate, Title: "new connections a second through a ClusterIP, several clients", Unit: "/s", Higher: true},
		{ID: RequestDirect, Title: "request over an open connection, straight to the pod: p50", Unit: "ms", Plain: true},
		{ID: RequestP50, Title: "request over an open connection through a ClusterIP: p50", Unit: "ms"},
		{ID: RequestP99, Title: same + "p99", Unit: "ms"},
	}
}

// same begins the title of a figure that is told apart from the one before it only by what follows.
const same = "the same: "

func figure(id string) (Figure, bool) {
	all := Figures()
	i := slices.IndexFunc(all, func(f Figure) bool { return f.ID == id })
	if i < 0 {
		return Figure{}, false
	}
	return all[i], true
}

// text returns the value for a table.
func (r Result) text() string {
	if r.AtLeast {
		return "> " + digits(r.Value)
	}
	return digits(r.Value)
}

// digits writes a number with three significant digits, and whole numbers as they are.
func digits(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	whole, _, fraction := strings.Cut(s, ".")
	if !fraction || len(strings.TrimPrefix(whole, "-")) >= 3 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	if err != nil {
		return s // cannot be: it was just written
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}
