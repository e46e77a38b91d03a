// Package iptables holds the netfilter state that kube-hop needs as values: a constant skeleton of chains
// ([Ruleset]) and the hash sets ([Set]) that its rules look up, which hold everything per Service. It also holds
// the contracts ([Rules], [Sets]) that the kernel edges (packages iptables/iptexec and iptables/ipsetnl) and the
// in-memory fakes (package iptables/iptablestest) both fulfil.
//
// The package is pure: values in, values out.
package iptables
