package informers

import "github.com/kube-hop/kube-hop/lb"

// maxInterned bounds the interner: it is emptied when it holds more names than the largest clusters have nodes.
const maxInterned = 1 << 14

// interner makes equal node and zone names share their memory. A cluster has few of them and names them once per
// endpoint, so without it they take more memory than the addresses. Not safe for concurrent use.
type interner struct {
	texts map[string]string
	lists map[string][]string // lists of one name, the usual form of a hint
}

// slice makes the endpoints of a new slice share names. It must not have been handed over yet.
func (in *interner) slice(s lb.EndpointSlice) {
	if in.texts == nil || len(in.texts) > maxInterned || len(in.lists) > maxInterned {
		in.texts, in.lists = map[string]string{}, map[string][]string{}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.NodeName, e.Zone = in.text(e.NodeName), in.text(e.Zone)
		e.HintZones, e.HintNodes = in.list(e.HintZones), in.list(e.HintNodes)
	}
}

func (in *interner) text(s string) string {
	if t, ok := in.texts[s]; ok {
		return t
	}
	in.texts[s] = s
	return s
}

func (in *interner) list(l []string) []string {
	if len(l) != 1 {
		return l
	}
	if t, ok := in.lists[l[0]]; ok {
		return t
	}
	in.lists[l[0]] = l
	return l
}
