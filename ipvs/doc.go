// Package ipvs holds the IPVS state of one network namespace as values: virtual servers, their real servers and
// the addresses that are made local so that IPVS sees their traffic. It also holds the contract ([Table]) that
// the kernel (package ipvs/ipvsnl) and the in-memory fake (package ipvs/ipvstest) both fulfil.
//
// The package is pure: values in, values out.
package ipvs
