package health_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kube-hop/kube-hop/health"
	"github.com/kube-hop/kube-hop/lb"
)

// serviceNet is a stand-in for the node's addresses: everything listens on a free loopback port.
type serviceNet struct {
	open   map[string]string // asked for to where it is
	opened int
	refuse string // addresses that contain it are taken
}

func (n *serviceNet) listen(ctx context.Context, network, address string) (net.Listener, error) {
	if n.refuse != "" && strings.Contains(address, n.refuse) {
		return nil, errors.New("address already in use")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err == nil {
		n.opened++
		n.open[network+" "+address] = l.Addr().String()
	}
	return l, err
}

// get asks the server that was to listen at an address; code 0 when it does not.
func (n *serviceNet) get(t *testing.T, at string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.open[at]+"/any/path", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, nil, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func newServers(t *testing.T) (*serviceNet, *health.ServiceServers, *atomic.Bool) {
	n, healthy := &serviceNet{open: map[string]string{}}, &atomic.Bool{}
	healthy.Store(true)
	s := health.NewServiceServers(n.listen, healthy.Load)
	t.Cleanup(s.Close)
	return n, s, healthy
}

var web = lb.Name{Namespace: "shop", Name: "web"}

func check(f lb.Family, port uint16, local int, addrs ...netip.Addr) lb.HealthCheck {
	return lb.HealthCheck{Service: web, Family: f, Port: port, Local: local, Addrs: addrs}
}

func TestServiceAnswer(t *testing.T) {
	n, s, healthy := newServers(t)
	apply := func(local int) {
		t.Helper()
		if err := s.Apply(t.Context(), web, []lb.HealthCheck{check(lb.IPv4, 31000, local), check(lb.IPv6, 31000, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	apply(2)
	code, header, body := n.get(t, "tcp4 0.0.0.0:31000")
	want := "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
	if code != 200 || body != want {
		t.Errorf("%d, %q, want 200, %q", code, body, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": "2",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if code, header, _ := n.get(t, "tcp6 [::]:31000"); code != 503 || header.Get("X-Load-Balancing-Endpoint-Weight") != "0" {
		t.Errorf("family without endpoints: %d, weight %q", code, header.Get("X-Load-Balancing-Endpoint-Weight"))
	}
	healthy.Store(false)
	if code, _, body := n.get(t, "tcp4 0.0.0.0:31000"); code != 503 || !strings.Contains(body, `"serviceProxyHealthy": false`) {
		t.Errorf("daemon unhealthy: %d, %s", code, body)
	}
	healthy.Store(true)
	apply(0)
	if code, _, _ := n.get(t, "tcp4 0.0.0.0:31000"); code != 503 {
		t.Errorf("no endpoints: %d", code)
	}
	if n.opened != 2 {
		t.Errorf("%d sockets were opened, want 2: a count is no reason to open another", n.opened)
	}
}

func TestServicePortsComeAndGo(t *testing.T) {
	n, s, _ := newServers(t)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, step := range []struct {
		want         []lb.HealthCheck
		open, closed []string
	}{
		{[]lb.HealthCheck{check(lb.IPv4, 31000, 1, a)}, []string{"tcp4 192.0.2.1:31000"}, nil},
		{[]lb.HealthCheck{check(lb.IPv4, 31000, 1, a, b)}, []string{"tcp4 192.0.2.1:31000", "tcp4 192.0.2.2:31000"}, nil},
		{[]lb.HealthCheck{check(lb.IPv4, 31001, 1, a)}, []string{"tcp4 192.0.2.1:31001"}, []string{"tcp4 192.0.2.1:31000", "tcp4 192.0.2.2:31000"}},
		{[]lb.HealthCheck{{Service: web, Family: lb.IPv4, Port: 31001, Local: 1, Addrs: []netip.Addr{}}}, nil, []string{"tcp4 192.0.2.1:31001"}},
		{[]lb.HealthCheck{check(lb.IPv4, 31001, 1)}, []string{"tcp4 0.0.0.0:31001"}, nil},
		{nil, nil, []string{"tcp4 0.0.0.0:31001"}},
	} {
		if err := s.Apply(t.Context(), web, step.want); err != nil {
			t.Fatal(err)
		}
		for _, at := range step.open {
			if code, _, _ := n.get(t, at); code != 200 {
				t.Errorf("%v: %s: %d", step.want, at, code)
			}
		}
		for _, at := range step.closed {
			if code, _, _ := n.get(t, at); code != 0 {
				t.Errorf("%v: %s still answers", step.want, at)
			}
		}
	}
}

// A port that is taken at one address is served at none, and the next attempt opens all.
func TestServicePortTaken(t *testing.T) {
	n, s, _ := newServers(t)
	want := []lb.HealthCheck{check(lb.IPv4, 31000, 1, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))}
	n.refuse = "192.0.2.2:31000"
	err := s.Apply(t.Context(), web, want)
	if err == nil || !strings.Contains(err.Error(), "31000") || !strings.Contains(err.Error(), "shop/web") {
		t.Errorf("%v, want an error with port and Service", err)
	}
	if code, _, _ := n.get(t, "tcp4 192.0.2.1:31000"); code != 0 {
		t.Error("half of the port is served")
	}
	n.refuse = ""
	if err := s.Apply(t.Context(), web, want); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"tcp4 192.0.2.1:31000", "tcp4 192.0.2.2:31000"} {
		if code, _, _ := n.get(t, at); code != 200 {
			t.Errorf("%s: %d", at, code)
		}
	}
}
