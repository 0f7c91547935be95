package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"datera-flexvolume/testdata/faults/trace"
)

// tally is what the walk has come to.
type tally struct {
	mutex      sync.Mutex
	planner    planner
	limit      time.Duration // 0: none
	until      time.Time     // from the first life on
	started    int
	lives      int
	calls      int
	checks     int
	halfMade   int
	missed     int
	longest    time.Duration
	points     map[string]int // furthest point, by mode and verb
	actions    map[trace.Action]int
	kinds      map[trace.Kind]int
	then       map[continuation]int
	violations int
}

func newTally() *tally {
	return &tally{points: map[string]int{}, actions: map[trace.Action]int{}, kinds: map[trace.Kind]int{}, then: map[continuation]int{}}
}

func (t *tally) next() (number int, p plan, ok bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.started == 0 {
		t.until = time.Now().Add(t.limit)
	}
	if t.limit > 0 && time.Now().After(t.until) {
		return 0, plan{}, false
	}
	p, ok = t.planner.next()
	t.started++
	return t.started, p, ok
}

func (t *tally) add(l *life) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.lives++
	t.calls += l.calls
	t.checks += l.checks
	t.longest = max(t.longest, l.longest)
	t.violations += len(l.violations)
	if l.halfMade {
		t.halfMade++
	}
	for f, point := range l.met {
		t.planner.learn(l.mode, f, point.Number > 0)
		if point.Number == 0 {
			t.missed++
			continue
		}
		t.actions[f.do]++
		t.then[f.then]++
		t.kinds[point.Kind]++
		name := fmt.Sprintf("%-11s%s", l.mode, f.verb)
		t.points[name] = max(t.points[name], f.at)
	}
}

func (t *tally) String() string {
	var s strings.Builder
	var injected int
	for _, n := range t.actions {
		injected += n
	}
	fmt.Fprintf(&s, "%d volumes led through their lives, %d calls, %d faults (and %d beyond the last point of their call)\n", t.lives, t.calls, injected, t.missed)
	fmt.Fprintf(&s, "  by action:  %s\n", counts(t.actions))
	fmt.Fprintf(&s, "  by step:    %s\n", counts(t.kinds))
	fmt.Fprintf(&s, "  and then:   %s\n", counts(t.then))
	fmt.Fprintf(&s, "  points:     %s\n", counts(t.points))
	fmt.Fprintf(&s, "%d checks, %d violations; longest call %.1f s; %d times mkfs was interrupted by a reboot, and refused from then on\n",
		t.checks, t.violations, t.longest.Seconds(), t.halfMade)
	return s.String()
}

func counts[K ~string](m map[K]int) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		words = append(words, fmt.Sprintf("%s %d", strings.Join(strings.Fields(string(key)), "/"), m[key]))
	}
	return strings.Join(words, ", ")
}
