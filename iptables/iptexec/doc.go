// Package iptexec is the kernel implementation of [iptables.Rules]: it runs iptables-save to see what is there and
// iptables-restore --noflush to change it, one table in one step. Both variants of iptables (nf_tables and legacy)
// serve; it uses the one that the name iptables stands for on the machine.
//
// These programs take most of the time that kube-hop spends here (0.1 to 0.8 s each on a small machine), so it is
// one iptables-save and one iptables-restore for all tables in which something differs, and one restore for each only
// if one of them is refused.
package iptexec
