// Package parity is the proof beside kube-proxy: one test for each row of the truth table that every Service proxy has
// to fulfil, and one for each known problem of IPVS proxies (P01 to P59). The same tests run with kube-hop and with
// kube-proxy in each of its modes as the subject, on the same kernel, with the same API server and the same packets.
// See README.md for how to run them and how to add one.
package parity
