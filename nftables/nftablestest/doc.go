// Package nftablestest holds an in-memory nftables.Tables, fault injection, and the tests that every implementation of
// the contract must pass.
package nftablestest
