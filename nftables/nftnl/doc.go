// Package nftnl is the nf_tables edge: it turns the values of package nftables into netlink requests and the
// kernel's answers into values. It starts no process. Every change is a transaction: it happens as a whole or not at
// all, so a table is never half of what it should be.
//
// Rules carry their text as a comment, as nft list ruleset shows it, and are compared by it.
package nftnl
