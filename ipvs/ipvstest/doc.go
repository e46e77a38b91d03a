// Package ipvstest is for tests of what uses an ipvs.Table: Fake is one in memory, Flaky makes one fail now and then,
// and Conformance is the suite that the fake and the kernel both pass.
package ipvstest
