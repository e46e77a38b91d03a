package testbed

// Proto is a transport protocol, spelt as in a Service.
type Proto string

// The protocols that Services know. Source: core/v1 Protocol.
const (
	TCP  Proto = "TCP"
	UDP  Proto = "UDP"
	SCTP Proto = "SCTP"
)
