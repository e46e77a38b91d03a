// Package nftables holds the nf_tables state that kube-hop needs as values: tables with a constant number of rules
// ([Table]), and the elements of their sets and maps ([Element]), which hold everything per Service. It also holds the
// contract ([Tables]) that the kernel edge (package nftables/nftnl) and the in-memory fake (package
// nftables/nftablestest) both fulfil.
//
// nf_tables does here what iptables cannot: act between the hooks of IPVS, and set the whole packet mark or an address
// from a map in one rule.
//
// The package is pure: values in, values out.
package nftables
