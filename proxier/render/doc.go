// Package render is kube-hop's pure core: it turns Services, endpoints and node facts into the kernel state that
// should exist, and the difference between two states into an ordered list of operations.
//
//	lb.Service, lb.EndpointSlice --Select--> endpoints of each view
//	                             --Service--> Frontends (one per address, port and protocol)
//	Frontends of all Services    --Model-->   what each kernel object should be, and who owns it
//	Model and State              --Diff-->    Plan: operations in an order without a window of exposure or loss
//
// Nothing here does I/O, looks at a clock or starts a goroutine. This is also the only place where Kubernetes words
// (Service, frontend, endpoint) become kernel words (virtual server, real server, set entry).
package render
