package model

import (
	"hash/maphash"
)

// tooMany keeps a search that was meant to be small from filling the memory.
const tooMany = 20_000_000

// A result is what a search found: no invariant, or the first one that is violated, and a shortest way to it.
type result struct {
	violated invariant
	states   int
	trace    []string
}

// search walks through all states, breadth first. States are told apart by 64 bits of hash: among ten million the chance that
// two are mixed up is about one in a hundred thousand.
func (sc *scenario) search() result {
	seed := maphash.MakeSeed()
	states := []state{sc.start()}
	from := []int32{0}
	index := map[uint64]int32{maphash.Comparable(seed, states[0]): 0}
	var back edges
	var found result
	at := -1
	for k := 0; k < len(states) && at < 0; k++ {
		s := states[k]
		sc.successors(&s, func(next state, m move) {
			hash := maphash.Comparable(seed, next)
			to, known := index[hash]
			if !known {
				to = int32(len(states))
				index[hash] = to
				states, from = append(states, next), append(from, int32(k))
				if broken := sc.violated(&next); broken != 0 && at < 0 {
					found.violated, at = broken, int(to)
				}
			}
			if m.progress && sc.checks&somebodyIn != 0 {
				back = append(back, edge{from: int32(k), to: to})
			}
		})
		if len(states) > tooMany {
			panic("too many states: " + sc.name)
		}
	}
	if at < 0 && sc.checks&somebodyIn != 0 {
		if at = sc.stuck(states, back); at >= 0 {
			found.violated = somebodyIn
		}
	}
	found.states = len(states)
	if at >= 0 {
		found.trace = sc.trace(states, from, at)
	}
	return found
}

func (sc *scenario) start() state { return state{there: true, online: true} }

type (
	edge  struct{ from, to int32 }
	edges []edge
)

// stuck is the first state from which nobody gets in by calls that are repeated, or -1. It walks back from the states in
// which somebody is in.
func (sc *scenario) stuck(states []state, back edges) int {
	begins := make([]int32, len(states)+1)
	for _, e := range back {
		begins[e.to+1]++
	}
	for i := range states {
		begins[i+1] += begins[i]
	}
	sources, fill := make([]int32, len(back)), append([]int32(nil), begins...)
	for _, e := range back {
		sources[fill[e.to]] = e.from
		fill[e.to]++
	}
	good := make([]bool, len(states))
	var queue []int32
	for i := range states {
		if sc.served(&states[i]) {
			good[i], queue = true, append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		to := queue[0]
		queue = queue[1:]
		for _, source := range sources[begins[to]:begins[to+1]] {
			if !good[source] {
				good[source], queue = true, append(queue, source)
			}
		}
	}
	for i := range states {
		if !good[i] {
			return i
		}
	}
	return -1
}
