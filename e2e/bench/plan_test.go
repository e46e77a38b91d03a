//go:build e2e && linux

package bench

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plan is what is measured and for how long.
type plan struct {
	sizes     []int         // numbers of Services, in this order
	bin       string        // folder of etcd, kube-apiserver and kube-proxy
	out       string        // folder of results and stores
	shared    bool          // others use the machine
	start     time.Duration // a start may take that long
	changes   int           // of one endpoint
	budget    time.Duration // the changes may take that long all together; then fewer have to do
	churn     time.Duration // how long steady changes go on
	rate      int           // steady changes a second
	idle      time.Duration
	samples   int // connections and requests of the data path
	burstMost int // Services that change in a burst, a fifth of all at most
	// count says that the clock goes by instructions: then those of the data path are counted and nothing else.
	count bool
	// steps are those that are taken, by name; the start always is.
	steps *regexp.Regexp
	// profile is how long processor profiles are; then figures are printed and not kept. 0 is none.
	profile time.Duration
	// tried are flags that the subject has beyond those of its kind; with them too figures are not kept.
	tried []string
}

// planned reads the plan from the environment, as hack/bench sets it.
func planned(t *testing.T) plan {
	t.Helper()
	p := plan{
		sizes: []int{1000, 5000, 20000}, bin: os.Getenv("CONTROLPLANE_BIN"), out: os.Getenv("BENCH_OUT"),
		shared: os.Getenv("BENCH_SHARED") != "", start: 15 * time.Minute,
		changes: 200, budget: 10 * time.Minute, churn: time.Minute, rate: 100, idle: 3 * time.Minute, samples: 2000, burstMost: 1000,
	}
	if os.Getenv("BENCH_QUICK") != "" {
		p.sizes, p.start, p.changes, p.budget = []int{200, 1000}, 6*time.Minute, 30, 2*time.Minute
		p.churn, p.idle, p.samples = 10*time.Second, 30*time.Second, 500
	}
	if p.count = os.Getenv("BENCH_COUNT") != ""; p.count {
		p.sizes, p.start, p.samples = []int{1000, 20000}, time.Hour, 500
	}
	if p.bin == "" || p.out == "" {
		const reason = "needs CONTROLPLANE_BIN and BENCH_OUT"
		if os.Getenv("REQUIRE_KERNEL") == "1" {
			t.Fatal("REQUIRE_KERNEL=1: ", reason)
		}
		t.Skip(reason)
	}
	var err error
	if p.steps, err = regexp.Compile(os.Getenv("BENCH_STEPS")); err != nil {
		t.Fatalf("BENCH_STEPS: %v", err)
	}
	p.tried = strings.Fields(os.Getenv("BENCH_FLAGS"))
	if text := os.Getenv("BENCH_PROFILE"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 1 || seconds > 600 {
			t.Fatalf("BENCH_PROFILE: %s is not a number of seconds from 1 to 600", text)
		}
		p.profile = time.Duration(seconds) * time.Second
	}
	if text := os.Getenv("SIZES"); text != "" {
		sizes, err := parseSizes(text)
		if err != nil {
			t.Fatal(err)
		}
		p.sizes = sizes
	}
	return p
}

// smallest is the fewest Services that can be measured: enough for changes of different ones.
const smallest = 50

func parseSizes(text string) ([]int, error) {
	var sizes []int
	for word := range strings.FieldsSeq(text) {
		n, err := strconv.Atoi(word)
		if err != nil || n < smallest || n > 100_000 {
			return nil, fmt.Errorf("SIZES: %s is not a number from %d to 100000", word, smallest)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}
