package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/kube-hop/kube-hop/lb"
)

// Listen opens a listening TCP socket; network is tcp4 or tcp6.
type Listen func(ctx context.Context, network, address string) (net.Listener, error)

// ServiceServers serves the healthCheckNodePorts of Services, as kube-proxy does: 200 if this node has a ready endpoint
// of the Service and the daemon is healthy, else 503. It is safe for concurrent use.
type ServiceServers struct {
	listen  Listen
	healthy func() bool

	mu      sync.Mutex
	servers map[lb.Name]map[lb.Family]*serviceServer
	done    sync.WaitGroup
}

// NewServiceServers returns servers that say of the daemon what healthy says.
func NewServiceServers(listen Listen, healthy func() bool) *ServiceServers {
	return &ServiceServers{listen: listen, healthy: healthy, servers: map[lb.Name]map[lb.Family]*serviceServer{}}
}

// Apply makes the servers of a Service what is wanted, at most one a family; none closes them. A server that stays
// where it is goes on serving, with the new count. Of one that cannot listen at one of its addresses, nothing stays open,
// so that no load balancer takes a half-served port for the truth; the error says so, and the next Apply tries again.
func (s *ServiceServers) Apply(ctx context.Context, service lb.Name, want []lb.HealthCheck) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.servers[service]
	next := map[lb.Family]*serviceServer{}
	for _, c := range want {
		if server := have[c.Family]; server != nil && server.listensFor(c) {
			server.set(c)
			next[c.Family] = server
			delete(have, c.Family)
		}
	}
	for _, server := range have { // before others open: the port may move from one to the other
		server.close()
	}
	var failed error
	for _, c := range want {
		if next[c.Family] != nil {
			continue
		}
		server, err := s.open(ctx, c)
		switch {
		case err == nil:
			next[c.Family] = server
		case failed == nil:
			failed = err
		default:
			failed = fmt.Errorf("%w; %w", failed, err) // one line, for logs and events
		}
	}
	if len(next) == 0 {
		delete(s.servers, service)
	} else {
		s.servers[service] = next
	}
	return failed
}

// Close closes all servers and waits for their end.
func (s *ServiceServers) Close() {
	s.mu.Lock()
	for _, servers := range s.servers {
		for _, server := range servers {
			server.close()
		}
	}
	clear(s.servers)
	s.mu.Unlock()
	s.done.Wait()
}

// serviceServer is the server of one Service and family.
type serviceServer struct {
	healthy func() bool
	http    *http.Server

	mu    sync.Mutex
	check lb.HealthCheck
}

func (s *ServiceServers) open(ctx context.Context, c lb.HealthCheck) (*serviceServer, error) {
	network, addrs := "tcp4", c.Addrs
	if c.Family == lb.IPv6 {
		network = "tcp6"
	}
	if addrs == nil {
		addrs = []netip.Addr{netip.IPv4Unspecified()}
		if c.Family == lb.IPv6 {
			addrs = []netip.Addr{netip.IPv6Unspecified()}
		}
	}
	server := &serviceServer{healthy: s.healthy, check: c}
	server.http = &http.Server{Handler: server, ReadHeaderTimeout: 5 * time.Second}
	var listeners []net.Listener
	for _, a := range addrs {
		l, err := s.listen(ctx, network, netip.AddrPortFrom(a, c.Port).String())
		if err != nil {
			for _, l := range listeners {
				_ = l.Close() // nothing was served on it
			}
			return nil, fmt.Errorf("health check node port %d of Service %s: %w", c.Port, c.Service, err)
		}
		listeners = append(listeners, l)
	}
	for _, l := range listeners {
		s.done.Go(func() { _ = server.http.Serve(l) }) // it ends when it is closed
	}
	return server, nil
}

func (s *serviceServer) close() { _ = s.http.Close() } // its only errors are those of listeners that are closed already

// listensFor reports whether the server listens where a check is to be answered.
func (s *serviceServer) listensFor(c lb.HealthCheck) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Local = s.check.Local
	return s.check.Equal(c)
}

func (s *serviceServer) set(c lb.HealthCheck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = c
}

// ServeHTTP answers any path and method. Headers and body are those of kube-proxy's service health server.
func (s *serviceServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	c := s.check
	s.mu.Unlock()
	healthy := s.healthy()
	code := http.StatusServiceUnavailable
	if healthy && c.Local > 0 {
		code = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(c.Local))
	w.WriteHeader(code)
	fmt.Fprintf(w, "{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}",
		c.Service.Namespace, c.Service.Name, c.Local, healthy)
}
