package informers

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kube-hop/kube-hop/lb"
)

// Annotations of a Service that are read. docs/annotations.md explains them.
const (
	// AnnotationScheduler names the IPVS scheduler of a Service.
	AnnotationScheduler = "kube-hop.io/ipvs-scheduler"
	// AnnotationSchedulerKubeRouter is read when AnnotationScheduler is not there. Source: kube-router user guide.
	AnnotationSchedulerKubeRouter = "kube-router.io/service.scheduler"
	// AnnotationSchedulerFlags lists flags of the scheduler.
	AnnotationSchedulerFlags = "kube-hop.io/ipvs-scheduler-flags"
	// AnnotationWeights gives weights to endpoints.
	AnnotationWeights = "kube-hop.io/weights"
	// AnnotationLocalListener leaves a ClusterIP to a listener on the node while there is one.
	AnnotationLocalListener = "kube-hop.io/local-listener"
)

const (
	// maxScheduler is IP_VS_SCHEDNAME_MAXLEN of linux/ip_vs.h, without the closing zero.
	maxScheduler = 15
	// maxWeight is ipvs.MaxWeight.
	maxWeight = 65535
)

// annotation is the path of an annotation in problems.
func annotation(key string) string { return "metadata.annotations[" + key + "]" }

// scheduler reads the annotation. Whether the kernel has the scheduler is for others to find out; here only a text
// that can be a scheduler name passes.
func (r *report) scheduler(annotations map[string]string) string {
	key := AnnotationScheduler
	s, ok := annotations[key]
	if !ok {
		key = AnnotationSchedulerKubeRouter
		s = annotations[key]
	}
	s = strings.TrimSpace(s)
	if len(s) > maxScheduler || strings.ContainsFunc(s, func(c rune) bool { return c < 'a' || c > 'z' }) {
		r.add(annotation(key), s, "must be 1 to 15 letters a to z")
		return ""
	}
	return s
}

// schedulerFlags reads the flags of a Service that is complete otherwise.
func (r *report) schedulerFlags(annotations map[string]string, s lb.Service) lb.SchedulerFlags {
	text, ok := annotations[AnnotationSchedulerFlags]
	if !ok {
		return 0
	}
	flags := lb.SchedulerFlagsSet
	for name := range strings.SplitSeq(text, ",") {
		switch name = strings.TrimSpace(name); name {
		case "", "sh-fallback", "mh-fallback": // always on
		case "sh-port", "mh-port":
			flags |= lb.HashPort
		case "ops":
			if s.Affinity != 0 || slices.ContainsFunc(s.Ports, func(p lb.ServicePort) bool { return p.Proto != lb.UDP }) {
				r.add(annotation(AnnotationSchedulerFlags), name, "is for Services that have only UDP ports and no session affinity")
				continue
			}
			flags |= lb.OnePacket
		default:
			r.add(annotation(AnnotationSchedulerFlags), name, "must be sh-port, sh-fallback, mh-port, mh-fallback or ops")
		}
	}
	return flags
}

// weights reads the rules for the weights of endpoints. If one of them is wrong none counts: half of a list could be
// worse than no list.
func (r *report) weights(annotations map[string]string) []lb.WeightRule {
	text, ok := annotations[AnnotationWeights]
	if !ok {
		return nil
	}
	var out []lb.WeightRule
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		rule, allowed := parseWeight(entry)
		if allowed != "" {
			r.add(annotation(AnnotationWeights), entry, allowed+"; no rule of this annotation counts")
			return nil
		}
		out = append(out, rule)
	}
	return out
}

// parseWeight reads a rule such as zone=a:3. If it cannot, it returns what would be allowed.
func parseWeight(entry string) (rule lb.WeightRule, allowed string) {
	at := strings.LastIndexByte(entry, ':')
	if at < 0 {
		return rule, "must be a selector, a colon and a weight, such as zone=a:3"
	}
	selector, number := strings.TrimSpace(entry[:at]), strings.TrimSpace(entry[at+1:])
	weight, err := strconv.Atoi(number)
	if err != nil || weight < 0 || weight > maxWeight {
		return rule, "must have a weight from 0 to 65535 behind the colon"
	}
	rule.Weight = weight
	what, value, hasValue := strings.Cut(selector, "=")
	rule.Value = value
	key, isLabel := strings.CutPrefix(what, "node-label/")
	switch {
	case selector == "local":
		rule.Kind = lb.WeightLocal
	case selector == "default":
		rule.Kind = lb.WeightDefault
	case what == "zone" && value != "":
		rule.Kind = lb.WeightZone
	case isLabel && hasValue && len(validation.IsQualifiedName(key))+len(validation.IsValidLabelValue(value)) == 0:
		rule.Kind, rule.Key = lb.WeightNodeLabel, key
	default:
		return rule, "must select by local, zone=ZONE, node-label/KEY=VALUE or default"
	}
	return rule, ""
}

// localListener reads whether the ClusterIP is left to the node while the node has it.
func (r *report) localListener(annotations map[string]string) bool {
	switch text := strings.TrimSpace(annotations[AnnotationLocalListener]); text {
	case "true":
		return true
	case "", "false":
	default:
		r.add(annotation(AnnotationLocalListener), text, "must be true or false")
	}
	return false
}
