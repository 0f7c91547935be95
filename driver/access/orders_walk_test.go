package access_test

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// explore walks through the orders: depth first, each time from the beginning. Where a state is met again, the same follows as
// before, so nothing is walked twice; and of two reads of different callers, one after the other, only one order is. With a
// limit it walks so many, of those that branch off anywhere. It returns who was told in which of them.
func explore(t *testing.T, s scenario, limit int, random *rand.Rand) (orders, states int, told map[string]bool) {
	t.Helper()
	seen, arrays, told := map[[32]byte]bool{}, arrays{}, map[string]bool{}
	tries := 0 // of one order: a call that waits for the login of one that was killed may be late
	stack := [][]string{nil}
	for len(stack) > 0 && (limit == 0 || orders < limit) {
		if limit > 0 {
			next, last := random.IntN(len(stack)), len(stack)-1
			stack[next], stack[last] = stack[last], stack[next]
		}
		path := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		orders++
		depth, order := 0, path
		var before choice
		w := run(t, arrays.next(t), s, func(w *world, choices []choice) int {
			defer func() { depth++ }()
			if depth < len(path) {
				next := slices.IndexFunc(choices, func(c choice) bool { return c.key() == path[depth] })
				if next < 0 {
					if tries++; tries > 3 {
						w.violated("the order cannot be repeated: %q is not there", path[depth])
					} else {
						stack = append(stack, order)
					}
					return next
				}
				before = reading(choices[next])
				return next
			}
			tries = 0
			state := w.fingerprint()
			if seen[state] {
				return -1
			}
			seen[state] = true
			first := -1
			for i := range slices.Backward(choices) {
				if commutes(before, choices[i]) {
					continue
				}
				if first >= 0 {
					stack = append(stack, append(slices.Clip(path), choices[first].key()))
				}
				first = i
			}
			if first >= 0 {
				path = append(slices.Clip(path), choices[first].key())
				before = reading(choices[first])
			}
			return first
		}, func(w *world) {
			if state := w.fingerprint(); !seen[state] {
				seen[state] = true
				settled(w)
			}
		}).right(t)
		for _, c := range w.callers {
			told[c.name] = told[c.name] || c.everTold
		}
	}
	return orders, len(seen), told
}

// reading is a choice if it is a read, else none.
func reading(c choice) choice {
	if c.what == goes && c.caller.waits.reads {
		return c
	}
	return choice{}
}

// commutes reports whether the other order of two reads is walked, too.
func commutes(before, next choice) bool {
	return before.caller != nil && next.what == goes && next.caller.waits.reads && next.caller.name < before.caller.name
}

// sample carries out an order that a seed chooses. Who was at work stays so more often than not: most calls are short.
func sample(t *testing.T, arrays *arrays, s scenario, random *rand.Rand) *world {
	t.Helper()
	var last *caller
	return run(t, arrays.next(t), s, func(_ *world, choices []choice) int {
		next := random.IntN(len(choices))
		if choices[next].what != goes && random.IntN(8) > 0 {
			next = slices.IndexFunc(choices, func(c choice) bool { return c.what == goes })
		}
		stays := func(c choice) bool { return c.caller == last && c.what == goes }
		if same := slices.IndexFunc(choices, stays); same >= 0 && random.IntN(5) < 3 && next >= 0 && choices[next].what == goes {
			next = same
		}
		next = max(next, 0)
		last = choices[next].caller
		return next
	}, settled).right(t)
}
