package access_test

import (
	"slices"
	"strings"
	"testing"
)

// A script is an order by name. Each line is a caller and what it does:
//
//	0A to GET /initiator_groups      its steps go until it is about to do that
//	0A past PUT /app_instances       ... until that is done, too
//	0A ends                          ... until its call has ended
//	0A is killed before, is called again
//	the array carries out what was given up
//
// or another choice by its name. Then all go on, one after the other.
type script struct {
	t     *testing.T
	lines []string
	turn  int
	ended int // calls of the caller of this line
	began bool
}

// play carries out a scripted order and wants what is told in it, in this order.
func play(t *testing.T, s scenario, order, told string) *world {
	t.Helper()
	p := &script{t: t, lines: lines(order)}
	arrays := &arrays{}
	w := run(t, arrays.next(t), s, p.next, settled)
	for len(p.lines) > 0 && strings.HasSuffix(p.lines[0], " ends") { // all have
		p.lines = p.lines[1:]
	}
	if len(p.lines) > 0 && w.wrong == "" {
		t.Fatalf("the order was not played to its end; left is %q:\n%s", p.lines, strings.Join(w.trace, "\n"))
	}
	at := 0
	for _, line := range lines(told) {
		found := slices.IndexFunc(w.trace[at:], func(traced string) bool { return strings.HasPrefix(traced, line) })
		if found < 0 {
			t.Fatalf("%q was not said, where the order is\n%s", line, strings.Join(w.trace, "\n"))
		}
		at += found + 1
	}
	return w
}

func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// next is the choice of the line that it is at.
func (p *script) next(w *world, choices []choice) int {
	for len(p.lines) > 0 {
		name, does, _ := strings.Cut(p.lines[0], " ")
		c := w.callerOf(name)
		if c != nil && !p.began {
			p.ended, p.began = c.calledBefore, true
		}
		goesOn := slices.IndexFunc(choices, func(each choice) bool { return each.caller == c && each.what == goes })
		word, what, _ := strings.Cut(does, " ")
		switch {
		case c != nil && word == "ends":
			if c.calledBefore > p.ended || c.ended {
				p.lines, p.began = p.lines[1:], false
				continue
			}
		case c != nil && (word == "to" || word == "past"):
			if goesOn >= 0 && strings.Contains(w.readable(c.waits.label), what) {
				p.lines, p.began = p.lines[1:], false
				if word == "to" {
					continue
				}
			}
		default:
			chosen := slices.IndexFunc(choices, func(each choice) bool { return each.key() == p.lines[0] })
			if chosen < 0 {
				w.violated("the order cannot be played: %q is not possible here", p.lines[0])
				return -1
			}
			p.lines, p.began = p.lines[1:], false
			return chosen
		}
		if goesOn < 0 {
			w.violated("the order cannot be played: at %q %s does nothing any more", p.lines[0], name)
			return -1
		}
		return goesOn
	}
	for { // one after the other, as some wait for what others do
		p.turn++
		c := w.callers[p.turn%len(w.callers)]
		if next := slices.IndexFunc(choices, func(each choice) bool { return each.caller == c && each.what == goes }); next >= 0 {
			return next
		}
	}
}

func (w *world) callerOf(name string) *caller {
	for _, c := range w.callers {
		if c.name == name {
			return c
		}
	}
	return nil
}
