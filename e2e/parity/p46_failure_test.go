//go:build e2e && linux

package parity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-hop/kube-hop/e2e/testbed"
)

// TestP46OneFailure: whatever fails, everything else is programmed, and what failed heals by itself.
func TestP46OneFailure(t *testing.T) {
	r := begin(t, "P46", "A set that cannot be made or is full, a bad address, a missing scheduler, the xtables lock held for 20 s: "+
		"all else is in time, an event names the bad one, it heals by itself in 2 s (10 s here)")
	r.badObjects()
	if r.subject.ipvs {
		r.badSets()
	}
	r.lockedTables()
}

// healing is how long what failed may take once its cause has gone: 2 s on an ordinary machine.
const healing = 10 * time.Second

// badObjects: Services that the kernel cannot serve as they are.
func (r *row) badObjects() {
	r.Helper()
	unusable := r.service("p46-unusable", clusterIPOnly, families4)
	plain := r.service("p46-beside")
	odd := r.service("p46-odd", families4, func(s *corev1.Service) {
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, "239.1.2.3", "255.255.255.255", "192.168.50.255")
	})
	broadcast := *r.A1 // an endpoint at a broadcast address, which IPVS does not take
	broadcast.Addr4 = r.Out.Addr4
	for last := byte(255); broadcast.Addr4.As4()[3] != last; {
		broadcast.Addr4 = broadcast.Addr4.Next()
	}
	unusable.endpoints(ready(&broadcast), ready(r.A1))
	plain.endpoints(pods(r.A1, r.B1)...)
	odd.endpoints(pods(r.A1, r.B1)...)
	r.withoutModule("ip_vs_lblcr")
	scheduled := r.service("p46-scheduler", annotated(annotationScheduler, "lblcr"))
	scheduled.endpoints(pods(r.A1, r.B1)...)
	r.settle()
	for _, s := range []*service{plain, odd, scheduled} {
		for _, f := range append(s.externals(r.N1), s.C()) {
			f.name += " of " + s.Name
			r.expect(r.A2, f, answeredBy(r.A1, r.B1))
		}
	}
	if r.subject.kubeHop() {
		r.expectEvent(scheduled, "lblcr")
	}
	if r.subject.ipvs { // to others an address is as good as another
		r.expectEvent(unusable, broadcast.Addr4.String())
	}
	plain.endpoints(ready(r.B1))
	unusable.endpoints(ready(r.A1))
	r.settle()
	r.expect(r.A2, plain.V(), answeredBy(r.B1))
	r.expect(r.A2, unusable.C(), answeredBy(r.A1))
}

// withoutModule hides a kernel module until the end of the row.
func (r *row) withoutModule(name string) {
	r.Helper()
	r.run(r.N1, "sh", "-ec", fmt.Sprintf("! grep -q '^%[1]s ' /proc/modules || rmmod %[1]s; mount --bind /dev/null $(modinfo -n %[1]s)", name))
	r.Cleanup(func() {
		r.run(r.N1, "sh", "-ec", fmt.Sprintf(`awk '$5 ~ /\/%s\.ko/ {print $5}' /proc/self/mountinfo | xargs -r -n 1 umount`, name))
	})
}

// badSets: the set of source ranges has the wrong type, or is full, before the subject starts.
func (r *row) badSets() {
	r.Helper()
	plain := r.service("p46-plain")
	ranged := r.service("p46-ranged", sourceRanges("10.244.0.0/16", "fd24::/48"))
	for _, s := range []*service{plain, ranged} {
		s.endpoints(pods(r.A1, r.B1)...)
	}
	n := r.spare()
	n.start(r.subject.period("2s"))
	r.settle()
	// The subject itself says what its set of source ranges is, such as "-N KUBE-X hash:ip,port,net family inet maxelem 9".
	create := strings.Fields(n.do(`ipset save | grep -m 1 -E '^create [^ ]+ hash:ip,port,net family inet '`))
	name := create[1]
	n.stop()
	_ = n.cleanup(r.subject) // P44 is about its errors
	n.do("ipset destroy " + name + " 2>/dev/null || true; ipset create " + name + " hash:mac")
	n.start(r.subject.period("2s"))
	n.servedBut(ranged, "with a foreign set in the place of "+name, plain.C(), plain.V(), ranged.C(), ranged.E())
	heals := func(what string) {
		if err := within(limit/2, func() error {
			return r.check(n.pod, ranged.V().proto, ranged.V().at[0], answeredBy(r.A1, r.B1))
		}); err != nil {
			r.Errorf("%s: %v", what, err)
		}
	}
	if _, err := n.sh("ipset destroy " + name); err != nil {
		r.Logf("the foreign set is in use: %v", err)
		n.do("ipset flush " + name)
	} else {
		heals("after the foreign set has gone")
	}
	n.stop()
	_ = n.cleanup(r.subject)
	n.do("ipset destroy " + name + " 2>/dev/null || true\n" +
		"ipset create " + name + " hash:ip,port,net family inet maxelem 1\nipset add " + name + " 192.0.2.1,tcp:1,192.0.2.0/24")
	n.start(r.subject.period("2s"))
	n.servedBut(ranged, "with "+name+" full", plain.C(), plain.V(), ranged.C(), ranged.E())
	heals("with " + name + " full at the start")
}

// servedBut: what does not depend on what is broken is served, and the ranges that cannot be kept do not let all in.
func (s *spare) servedBut(ranged *service, when string, fronts ...frontend) {
	r := s.row
	r.Helper()
	if err := within(limit/2, func() error {
		for _, f := range fronts {
			if err := r.check(s.pod, f.proto, f.at[0], answeredBy(r.A1, r.B1)); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		return nil
	}); err != nil {
		r.Errorf("%s other frontends are not served: %v", when, err)
	}
	v := ranged.V()
	if a, err := s.Ask(r.Context(), v.proto, v.at[0], testbed.Timeout(dropTime)); err == nil { // refused is closed too
		r.Errorf("%s its Service is open to all: %s answers", when, a.Pod)
	}
}

// lockedTables: with iptables of the variant that has a lock, which somebody holds while Services change, and while
// the subject starts.
func (r *row) lockedTables() {
	r.Helper()
	r.legacyTables()
	n := r.spare()
	before := r.service("p46-before")
	before.endpoints(ready(r.A1))
	n.start()
	r.settle()

	unlock := r.lockTables()
	before.endpoints(ready(r.B1))
	during := r.service("p46-during", sourceRanges("10.244.0.0/16", "fd24::/48"))
	during.endpoints(ready(r.A1))
	r.idle(lockTime)
	if r.subject.kubeHop() { // others may wait, if they do not wait longer
		n.rightSoon("while the xtables lock is held", 0, before, r.B1, during, r.A1)
	}
	unlock()
	n.rightSoon("after the xtables lock was held during changes", healing, before, r.B1, during, r.A1)

	n.stop()
	_ = n.cleanup(r.subject)
	unlock = r.lockTables()
	n.start()
	r.idle(lockTime)
	unlock()
	n.rightSoon("after the xtables lock was held during the start", healing, before, r.B1, during, r.A1)
}

// lockTime is how long the xtables lock is held.
const lockTime = 20 * time.Second

// rightSoon: within the time each of the two Services is answered by its pod, wherever it should be.
func (s *spare) rightSoon(when string, most time.Duration, one *service, pod1 *testbed.Host, two *service, pod2 *testbed.Host) {
	r := s.row
	r.Helper()
	begin := time.Now()
	err := within(most, func() error { return errors.Join(s.right(one, pod1), s.right(two, pod2)) })
	if err != nil {
		r.Errorf("%s, for %.0f s: %v", when, time.Since(begin).Seconds(), err)
	}
	r.Logf("%s: %.1f s", when, time.Since(begin).Seconds())
}

// right asks all frontends of a Service side by side, and returns what is not answered by the pod.
func (s *spare) right(of *service, pod *testbed.Host) error {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for _, f := range append(of.externals(s.Host), of.C()) {
		for _, dst := range f.at {
			wg.Go(func() {
				switch a, err := s.pod.Ask(s.row.Context(), f.proto, dst, testbed.Timeout(time.Second)); {
				case err != nil:
					errs <- fmt.Errorf("%s of %s (%s): %s", f.name, of.Name, dst, word(err))
				case a.Pod != pod.Name:
					errs <- fmt.Errorf("%s of %s (%s): answered by %s, want %s", f.name, of.Name, dst, a.Pod, pod)
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// legacyTables makes iptables, for what this row starts from now on, the variant that has a lock.
func (r *row) legacyTables() {
	r.Helper()
	dir := r.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			r.must(os.Symlink("/usr/sbin/"+family+"-legacy"+verb, filepath.Join(dir, family+verb)))
		}
	}
	r.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// lockTables takes the lock of iptables, as another program that changes rules.
func (r *row) lockTables() (unlock func()) {
	r.Helper()
	f, err := os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDWR, 0o600)
	r.must(err)
	r.Cleanup(func() { _ = f.Close() })
	r.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
	return func() { _ = f.Close() }
}
