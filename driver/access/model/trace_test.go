package model

import (
	"fmt"
	"slices"
)

// trace tells the way to a state, one step a line.
func (sc *scenario) trace(states []state, from []int32, at int) []string {
	var path []int
	for ; at != 0; at = int(from[at]) {
		path = append(path, at)
	}
	slices.Reverse(path)
	var lines []string
	before := 0
	for n, to := range path {
		told := ""
		sc.successors(&states[before], func(next state, m move) {
			if told == "" && next == states[to] {
				told = sc.tellMove(m)
			}
		})
		lines = append(lines, fmt.Sprintf("%2d. %s", n+1, told))
		before = to
	}
	return lines
}

func (sc *scenario) tellMove(m move) string {
	who := "the array"
	switch {
	case m.caller < len(sc.who):
		who = sc.who[m.caller].String()
	case m.node < maxNodes:
		who = "node " + letter(m.node)
	}
	what := m.what
	switch {
	case m.at == idle:
	case m.at == evict && m.what == words[evict]:
		what += " node " + letter(m.node)
	case m.at.looks() && m.what != "is killed before this":
		what = words[m.at] + " " + m.what
	case m.what != words[m.at]:
		what = m.what + ": " + words[m.at]
	}
	switch {
	case m.what == "reads the members" && sc.filter:
		what += " of all groups"
	case m.group != none:
		what += " [" + m.group.String() + "]"
	}
	return who + ": " + what
}

func letter(node uint8) string { return string('A' + rune(node)) }

func (g group) String() string {
	if g.former() {
		return fmt.Sprintf("former group of PV %d", g.pv())
	}
	access := "rw"
	if g.readOnly() {
		access = "ro"
	}
	return fmt.Sprintf("PV %d, UUID %d, %s", g.pv(), g>>1&1, access)
}
