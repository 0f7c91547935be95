package faults

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/testdata/faults/trace"
)

// Where calls have some points, each of them gets each fault after which the life goes on, and one that ends it where
// that differs; then the walk is over.
func TestEverythingComesToEveryPoint(t *testing.T) {
	const has = 7
	e := newEverything(3)
	seen := map[string]bool{}
	lives := 0
	for p, ok := e.next(); ok; p, ok = e.next() {
		lives++
		require.Less(t, lives, 1000, "it does not end")
		again, err := parsePlan(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
		for _, f := range p.faults {
			seen[fmt.Sprint(p.mode, " ", f)] = true
			e.learn(p.mode, f, f.at <= has)
		}
	}
	for _, mode := range modes {
		for _, verb := range verbs(mode) {
			for at := 1; at <= has; at++ {
				for _, do := range []trace.Action{trace.Kill, trace.KillAfter, trace.Fail} {
					require.Contains(t, seen, fmt.Sprint(mode, " ", fault{verb, at, do, again}))
				}
				if rivals(mode, verb) {
					require.Contains(t, seen, fmt.Sprint(mode, " ", fault{verb, at, trace.Hold, rival}))
				}
			}
		}
	}
	require.Contains(t, seen, "none "+fault{"mount", 1, trace.KillAfter, branches[(1+3)%len(branches)]}.String())
}

func TestSampleIsTheSameForTheSameSeed(t *testing.T) {
	one, two := newSample(7), newSample(7)
	for range 50 {
		p, _ := one.next()
		again, _ := two.next()
		require.Equal(t, p, again)
		last := p.faults[len(p.faults)-1]
		require.True(t, last.then != rival || rivals(p.mode, last.verb), "%s has no rival", p)
	}
}

func TestParsePlanRefuses(t *testing.T) {
	for _, text := range []string{"", "nobody", "none mount", "none attach@1:kill:again", "none mount@x:kill:again", "none mount@1:kill"} {
		_, err := parsePlan(text)
		require.Error(t, err, text)
	}
}
