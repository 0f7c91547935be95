package model

import (
	"fmt"
	"strings"
)

// A scenario is a question: these callers in this world, by this protocol, and these invariants.
type scenario struct {
	name    string
	callers string // "0A": PersistentVolume 0 on node A, "1Br": 1 on B, read-only, "0Af": by the former version; "delete", "collect:0A"
	world
	protocol
	checks invariant // what is checked; 0: what is wanted, or all but somebodyIn
	wants  invariant // the invariant that is violated, or 0
	large  bool      // only by `make model`

	who   []who
	nodes uint8
}

type kind uint8

const (
	attaches kind = iota
	deletes
	collects
)

type who struct {
	kind     kind
	pv, node uint8
	readOnly bool
	former   bool // by the former version
}

func (w who) same(o who) bool {
	return w.kind == attaches && o.kind == attaches && w.pv == o.pv && w.node == o.node
}

func (w who) String() string {
	switch w.kind {
	case deletes:
		return "delete"
	case collects:
		return "collector"
	}
	access := ""
	if w.readOnly {
		access = ", ro"
	}
	if w.former {
		access += ", former version"
	}
	return fmt.Sprintf("PV %d on %s%s", w.pv, letter(w.node), access)
}

// parse reads the callers.
func (sc scenario) parse() *scenario {
	for word := range strings.FieldsSeq(sc.callers) {
		var w who
		switch spec, isCollector := strings.CutPrefix(word, "collect:"); {
		case word == "delete":
			w.kind = deletes
		default:
			w.pv, w.node = spec[0]-'0', spec[1]-'A'
			w.readOnly = strings.Contains(spec[2:], "r")
			w.former = strings.Contains(spec[2:], "f")
			if isCollector {
				w.kind = collects
			}
			sc.nodes = max(sc.nodes, w.node+1)
		}
		sc.who = append(sc.who, w)
	}
	switch {
	case sc.checks != 0:
	case sc.wants != 0:
		sc.checks = sc.wants
	default:
		sc.checks = safe
	}
	return &sc
}

// book is the caller that keeps the notes of the host: calls for one PersistentVolume and node on one host share them.
func (t *turn) book() *caller {
	if t.hosts && !t.notesOnArray {
		return t.c
	}
	for i, w := range t.who {
		if w.same(t.caller) {
			return &t.s.callers[i]
		}
	}
	return t.c
}
