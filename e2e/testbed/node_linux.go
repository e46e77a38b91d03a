package testbed

import (
	"context"
	"fmt"
)

// podBridge is the bridge that a node's pods are joined to.
const podBridge = "cbr0"

// First of the numbers that hosts of a kind are given, the last part of their addresses.
const (
	firstNode    = 11
	firstPod     = 11
	firstOutside = 100
)

func (h *Host) isNode() bool { return h.Gateway4.IsValid() }

// addNode makes a node on the wire with a pod bridge and its pods, and routes between it and the nodes before it.
func (b *Bed) addNode(spec NodeSpec) error {
	node, err := b.newHost(spec.Name, nodeSysctls()...)
	if err != nil {
		return err
	}
	node.index = len(b.nodes)
	wire4, wire6 := onWire(firstNode + node.index)
	node.Addr4, node.Addr6 = wire4.Addr(), wire6.Addr()
	if err := node.plug(b.wire, "br0", wire4, wire6); err != nil {
		return err
	}
	pods4, pods6 := onNode(node.index, 1)
	node.Gateway4, node.Gateway6 = pods4.Addr(), pods6.Addr()
	if err := node.addBridge(podBridge, pods4, pods6); err != nil {
		return err
	}
	if err := node.defaultVia(wireGateway4, wireGateway6); err != nil {
		return err
	}
	for _, other := range b.nodes {
		if err := joinPodRanges(node, other); err != nil {
			return err
		}
	}
	b.nodes = append(b.nodes, node)
	for _, name := range spec.Pods {
		if _, err := b.addPod(node, name); err != nil {
			return err
		}
	}
	return nil
}

// joinPodRanges lets each node reach the other's pods by way of its InternalIP.
func joinPodRanges(a, b *Host) error {
	for _, pair := range [][2]*Host{{a, b}, {b, a}} {
		range4, range6 := onNode(pair[1].index, 0)
		if err := pair[0].RouteVia(range4, pair[1]); err != nil {
			return err
		}
		if err := pair[0].RouteVia(range6, pair[1]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bed) addPod(node *Host, name string) (*Host, error) {
	if b.Host(name) != nil {
		return nil, fmt.Errorf("host %s: name taken", name)
	}
	pod, err := b.newHost(name)
	if err != nil {
		return nil, err
	}
	addr4, addr6 := onNode(node.index, firstPod+node.pods)
	node.pods++
	pod.Node, pod.Addr4, pod.Addr6 = node, addr4.Addr(), addr6.Addr()
	if err := pod.plug(node, podBridge, addr4, addr6); err != nil {
		return nil, err
	}
	return pod, pod.defaultVia(node.Gateway4, node.Gateway6)
}

// AddNode adds a node with its pods to a running bed. Outside clients go on to use the first node for Service addresses.
func (b *Bed) AddNode(ctx context.Context, spec NodeSpec) (*Host, error) {
	if b.Host(spec.Name) != nil {
		return nil, fmt.Errorf("testbed: host %s: name taken", spec.Name)
	}
	before := len(b.hosts)
	if err := b.addNode(spec); err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	for _, h := range b.hosts[before:] {
		if err := h.waitReady(ctx); err != nil {
			return nil, err
		}
	}
	return b.Host(spec.Name), nil
}

// AddPod adds a pod to a node of a running bed; it has the node's next free address.
func (b *Bed) AddPod(ctx context.Context, node *Host, name string) (*Host, error) {
	pod, err := b.addPod(node, name)
	if err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	return pod, pod.waitReady(ctx)
}

// AddOutside adds an outside client: on the wire, with routes for [ServiceRanges] by way of the first node and no
// others.
func (b *Bed) AddOutside(ctx context.Context, name string) (*Host, error) {
	if b.Host(name) != nil {
		return nil, fmt.Errorf("testbed: host %s: name taken", name)
	}
	h, err := b.newHost(name)
	if err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	wire4, wire6 := onWire(firstOutside + b.outside)
	b.outside++
	h.Addr4, h.Addr6 = wire4.Addr(), wire6.Addr()
	if err := h.plug(b.wire, "br0", wire4, wire6); err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	if len(b.nodes) > 0 {
		for _, r := range ServiceRanges() {
			if err := h.RouteVia(r, b.nodes[0]); err != nil {
				return nil, fmt.Errorf("testbed: %w", err)
			}
		}
	}
	return h, h.waitReady(ctx)
}
