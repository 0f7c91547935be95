package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// bounds are the buckets of a call's duration in seconds; a call ends after 100 s.
func bounds() []float64 { return []float64{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100} }

// state is what was counted so far.
type state struct {
	Notes []string // that were added last
	Verbs map[string]*counters
}

// counters are those of a verb.
type counters struct {
	Success, Failure   int64
	Buckets            []int64 // calls that took no longer than the bound
	Seconds            float64
	Programs, Requests int64
}

func (s *state) add(call Call) {
	if s.Verbs == nil {
		s.Verbs = map[string]*counters{}
	}
	c := s.Verbs[call.Verb]
	if c == nil || len(c.Buckets) != len(bounds()) {
		c = &counters{Buckets: make([]int64, len(bounds()))}
		s.Verbs[call.Verb] = c
	}
	if call.Success {
		c.Success++
	} else {
		c.Failure++
	}
	took := call.Work.Duration.Seconds()
	for i, bound := range bounds() {
		if took <= bound {
			c.Buckets[i]++
		}
	}
	c.Seconds += took
	c.Programs += call.Work.Programs
	c.Requests += call.Work.Requests
}

// text is the state in Prometheus' text format.
func (s *state) text(r Recorder) []byte {
	var t bytes.Buffer
	verbs := slices.Sorted(maps.Keys(s.Verbs))
	metric := func(name, kind, help string) string {
		fmt.Fprintf(&t, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", name, help, kind)
		return name
	}
	name := metric("datera_iscsi_calls_total", "counter", "Calls of the driver by Kubernetes and by people, init excepted.")
	for _, verb := range verbs {
		fmt.Fprintf(&t, "%s{verb=%q,result=\"success\"} %d\n%[1]s{verb=%[2]q,result=\"failure\"} %[4]d\n", name, verb, s.Verbs[verb].Success, s.Verbs[verb].Failure)
	}
	name = metric("datera_iscsi_call_duration_seconds", "histogram", "How long calls took.")
	for _, verb := range verbs {
		c := s.Verbs[verb]
		for i, bound := range bounds() {
			fmt.Fprintf(&t, "%s_bucket{verb=%q,le=%q} %d\n", name, verb, number(bound), c.Buckets[i])
		}
		all := c.Success + c.Failure
		fmt.Fprintf(&t, "%s_bucket{verb=%q,le=\"+Inf\"} %d\n%[1]s_sum{verb=%[2]q} %[4]s\n%[1]s_count{verb=%[2]q} %[3]d\n", name, verb, all, number(c.Seconds))
	}
	name = metric("datera_iscsi_array_requests_total", "counter", "REST calls to the array, by the verb that made them.")
	for _, verb := range verbs {
		fmt.Fprintf(&t, "%s{verb=%q} %d\n", name, verb, s.Verbs[verb].Requests)
	}
	name = metric("datera_iscsi_programs_started_total", "counter", "Programs started, by the verb that did.")
	for _, verb := range verbs {
		fmt.Fprintf(&t, "%s{verb=%q} %d\n", name, verb, s.Verbs[verb].Programs)
	}
	fmt.Fprintf(&t, "%s %d\n", metric("datera_iscsi_volumes", "gauge", "Volumes in the journal of this node at the last call."), r.Volumes())
	fmt.Fprintf(&t, "%s %d\n", metric("datera_iscsi_node_sessions", "gauge", "iSCSI sessions of this node, with whatever target, at the last call."), r.Sessions())
	fmt.Fprintf(&t, "%s{version=%q} 1\n", metric("datera_iscsi_build_info", "gauge", "The driver that made the last call."), r.Version)
	return t.Bytes()
}

func number(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }
