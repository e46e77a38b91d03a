package sockhook

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kube-hop/kube-hop/iptables"
)

// Offsets in struct bpf_sock_addr, what the programs get (linux/bpf.h). The address and the port are those of the
// peer, in network byte order.
const (
	ctxIP4   = 4
	ctxIP6   = 8
	ctxPort  = 24
	ctxProto = 36
	ctxSock  = 64
)

// Offsets in struct bpf_sock: the address that the socket is bound to (linux/bpf.h).
const (
	sockIP4 = 24
	sockIP6 = 28
)

// Places on the stack of a program.
const (
	stackPort = -4  // key of the port map
	stackDest = -24 // the address that the program of the node asked for, 16 bytes
	stackFlow = -56 // key of the flow map, 32 bytes
)

const protoUDP = 17

// hook is one place where the kernel calls a program.
type hook struct {
	name   string // of the pin
	attach ebpf.AttachType
	family iptables.Family // of the socket
	back   bool            // the answer's way
}

// hooks are all of them. TCP and connected UDP sockets pass connect, other UDP sockets pass sendmsg with each datagram,
// and recvmsg tells a UDP socket where an answer came from. SCTP has no hook.
func hooks() []hook {
	return []hook{
		{"connect4", ebpf.AttachCGroupInet4Connect, iptables.IPv4, false},
		{"connect6", ebpf.AttachCGroupInet6Connect, iptables.IPv6, false},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, iptables.IPv4, false},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, iptables.IPv6, false},
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, iptables.IPv4, true},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, iptables.IPv6, true},
	}
}

// program writes the program of a hook. cookie identifies the network namespace whose sockets are led; those of pods
// have another and pass unchanged, as does whatever the maps do not know.
//
// The programs are written here and not compiled from C, so that neither a compiler nor generated files are needed to
// build and to review them.
func program(h hook, cookie uint64, ports, flows *ebpf.Map) asm.Instructions {
	p := writer{flows: flows.FD(), ports: ports.FD()}
	p.add(asm.Mov.Reg(asm.R6, asm.R1))
	if h.back {
		p.restore(h.family)
	} else {
		p.divert(h.family, cookie)
	}
	p.add(
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // 1 lets the system call go on
		asm.Return(),
	)
	return p.code
}

// writer collects instructions. R6 holds the context; R7 and R8 are for the parts, R1 to R5 are lost with every call.
type writer struct {
	code         asm.Instructions
	ports, flows int
}

func (p *writer) add(i ...asm.Instruction) { p.code = append(p.code, i...) }

// divert leads a connection or datagram to a port on loopback to where the port map says.
func (p *writer) divert(f iptables.Family, cookie uint64) {
	if f == iptables.IPv4 {
		p.wantLoopback4()
	} else {
		p.wantLoopback6()
	}
	p.add(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R1, int64(cookie), asm.DWord), //nolint:gosec // the same 64 bits
		asm.JNE.Reg(asm.R0, asm.R1, "pass"),
	)
	p.lookUpPort()
	p.rememberUDP()
	if f == iptables.IPv4 {
		p.add(
			asm.LoadMem(asm.R1, asm.R7, 12, asm.Word),
			asm.StoreMem(asm.R6, ctxIP4, asm.R1, asm.Word),
		)
		return
	}
	p.copyWords(asm.R6, ctxIP6, asm.R7, 0)
}

// wantLoopback4 passes unless the peer is in 127.0.0.0/8 and the socket is not bound there: from a loopback address no
// packet can be sent to a pod, and the host then refuses such a connection at once.
func (p *writer) wantLoopback4() {
	p.add(
		asm.StoreImm(asm.RFP, stackPort, int64(iptables.IPv4), asm.Byte),
		asm.LoadMem(asm.R7, asm.R6, ctxIP4, asm.Word),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackDest, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, stackDest+12, asm.R7, asm.Word),
		asm.HostTo(asm.BE, asm.R7, asm.Word),
		asm.RSh.Imm(asm.R7, 24),
		asm.JNE.Imm(asm.R7, 127, "pass"),
		asm.Mov.Imm(asm.R1, 0xffff),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, stackDest+8, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, ctxSock, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R1, sockIP4, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.RSh.Imm(asm.R1, 24),
		asm.JEq.Imm(asm.R1, 127, "pass"),
	)
}

// wantLoopback6 is wantLoopback4 for ::1, and for 127.0.0.0/8 in the IPv6 form that a socket of both families uses.
func (p *writer) wantLoopback6() {
	p.copyWords(asm.RFP, stackDest, asm.R6, ctxIP6)
	p.add(
		asm.LoadMem(asm.R7, asm.RFP, stackDest, asm.DWord),
		asm.JNE.Imm(asm.R7, 0, "pass"),
		asm.LoadMem(asm.R7, asm.RFP, stackDest+8, asm.DWord),
		asm.HostTo(asm.BE, asm.R7, asm.DWord),
		asm.StoreImm(asm.RFP, stackPort, int64(iptables.IPv6), asm.Byte),
		asm.JEq.Imm(asm.R7, 1, "source"),
		asm.StoreImm(asm.RFP, stackPort, int64(iptables.IPv4), asm.Byte),
		asm.RSh.Imm(asm.R7, 24),
		asm.LoadImm(asm.R1, 0xffff<<8|127, asm.DWord),
		asm.JNE.Reg(asm.R7, asm.R1, "pass"),

		asm.LoadMem(asm.R1, asm.R6, ctxSock, asm.DWord).WithSymbol("source"),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.LoadMem(asm.R2, asm.R1, sockIP6, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, sockIP6+4, asm.Word),
		asm.Or.Reg(asm.R2, asm.R3),
		asm.JNE.Imm(asm.R2, 0, "unbound"),
		asm.LoadMem(asm.R2, asm.R1, sockIP6+8, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, sockIP6+12, asm.Word),
		asm.HostTo(asm.BE, asm.R2, asm.Word),
		asm.HostTo(asm.BE, asm.R3, asm.Word),
		asm.LSh.Imm(asm.R2, 32),
		asm.Or.Reg(asm.R2, asm.R3),
		asm.JEq.Imm(asm.R2, 1, "pass"),
		asm.RSh.Imm(asm.R2, 24),
		asm.LoadImm(asm.R1, 0xffff<<8|127, asm.DWord),
		asm.JEq.Reg(asm.R2, asm.R1, "pass"),
		asm.Mov.Imm(asm.R1, 0).WithSymbol("unbound"),
	)
}

// lookUpPort leaves in R7 where the address is that the port map has for the family, protocol and port, or passes.
func (p *writer) lookUpPort() {
	p.add(
		asm.LoadMem(asm.R1, asm.R6, ctxProto, asm.Word),
		asm.StoreMem(asm.RFP, stackPort+1, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, asm.R6, ctxPort, asm.Word),
		asm.StoreMem(asm.RFP, stackPort+2, asm.R1, asm.Half),
		asm.LoadMapPtr(asm.R1, p.ports),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackPort),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
	)
}

// rememberUDP notes for a UDP socket which address its program asked for, so that answers can seem to come from it.
func (p *writer) rememberUDP() {
	p.add(
		asm.LoadMem(asm.R1, asm.R6, ctxProto, asm.Word),
		asm.JNE.Imm(asm.R1, protoUDP, "write"),
	)
	p.flowKey(func() { p.copyWords(asm.RFP, stackFlow+8, asm.R7, 0) })
	p.add(
		asm.LoadMapPtr(asm.R1, p.flows),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackFlow),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackDest),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("write"),
	)
}

// flowKey writes the key of the flow map: socket, address and port of the peer.
func (p *writer) flowKey(address func()) {
	p.add(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, stackFlow, asm.R0, asm.DWord),
	)
	address()
	p.add(
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackFlow+24, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, ctxPort, asm.Word),
		asm.StoreMem(asm.RFP, stackFlow+24, asm.R1, asm.Half),
	)
}

// restore makes the answer to a datagram that was led elsewhere come from the address that was asked for.
func (p *writer) restore(f iptables.Family) {
	p.flowKey(func() {
		if f == iptables.IPv6 {
			p.copyWords(asm.RFP, stackFlow+8, asm.R6, ctxIP6)
			return
		}
		p.add(
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.RFP, stackFlow+8, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R1, 0xffff),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.StoreMem(asm.RFP, stackFlow+16, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, ctxIP4, asm.Word),
			asm.StoreMem(asm.RFP, stackFlow+20, asm.R1, asm.Word),
		)
	})
	p.add(
		asm.LoadMapPtr(asm.R1, p.flows),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackFlow),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
	)
	if f == iptables.IPv6 {
		p.copyWords(asm.R6, ctxIP6, asm.R7, 0)
		return
	}
	p.add(
		asm.LoadMem(asm.R1, asm.R7, 12, asm.Word),
		asm.StoreMem(asm.R6, ctxIP4, asm.R1, asm.Word),
	)
}

// copyWords copies 16 bytes in four steps, because the context lets its addresses be read and written only so.
func (p *writer) copyWords(to asm.Register, toOffset int16, from asm.Register, fromOffset int16) {
	for i := int16(0); i < 16; i += 4 {
		p.add(
			asm.LoadMem(asm.R1, from, fromOffset+i, asm.Word),
			asm.StoreMem(to, toOffset+i, asm.R1, asm.Word),
		)
	}
}

// portKey is an entry's key in the port map: family, protocol and port, the port in network byte order.
func portKey(e iptables.Entry) [4]byte {
	key := [4]byte{byte(e.Family()), e.Proto}
	binary.BigEndian.PutUint16(key[2:], e.Port)
	return key
}

// address is an entry's value: its address, IPv4 in the IPv6 form.
func address(e iptables.Entry) [16]byte { return e.Prefix.Addr().As16() }

// entryOf is the way back.
func entryOf(key [4]byte, value [16]byte) iptables.Entry {
	a := netip.AddrFrom16(value).Unmap()
	return iptables.Entry{
		Prefix: netip.PrefixFrom(a, a.BitLen()), Proto: key[1], Port: binary.BigEndian.Uint16(key[2:]),
	}
}
