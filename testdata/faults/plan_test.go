package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/faults/trace"
)

var modes = []driver.AttachMode{driver.AttachController, driver.AttachKubelet, driver.AttachNone}

// verbs are the calls of a volume's life, in their order.
func verbs(mode driver.AttachMode) []string {
	if mode == driver.AttachNone {
		return []string{"mount", "expandfs", "unmount"}
	}
	return []string{"attach", "waitforattach", "mountdevice", "mount", "expandfs", "unmount", "unmountdevice", "detach"}
}

// continuation is what happens after a fault.
type continuation string

const (
	again      continuation = "again"       // the same call, until it succeeds; then the life goes on
	podDeleted continuation = "pod-deleted" // what was mounted is unmounted
	move       continuation = "move"        // the pod moves to the other node; the first one cleans up later
	reboot     continuation = "reboot"      // the node reboots, and the pod comes back to it
	rebootMove continuation = "reboot-move" // the node reboots, and the pod moves
	lost       continuation = "lost"        // the node reboots without the files of driver and open-iscsi, and the pod comes back
	lostMove   continuation = "lost-move"   // the same, and the pod moves
	anew       continuation = "anew"        // PersistentVolume and pod are made anew under their names, for another volume
	readers    continuation = "readers"     // the pod becomes one of two that only read, on both nodes
	alias      continuation = "alias"       // another PersistentVolume leads to the volume, for a pod on the other node
	rival      continuation = "rival"       // while the step is held, the pod moves to the other node
)

// branches end a life early.
var branches = []continuation{podDeleted, move, reboot, rebootMove, lost, lostMove, anew, readers, alias}

// fault is what happens to one call, and then.
type fault struct {
	verb string
	at   int
	do   trace.Action
	then continuation
}

func (f fault) String() string { return fmt.Sprintf("%s@%d:%s:%s", f.verb, f.at, f.do, f.then) }

// plan is one life: faults of which each but the last lets it go on.
type plan struct {
	mode   driver.AttachMode
	faults []fault
}

// String is what -life takes.
func (p plan) String() string {
	words := []string{string(p.mode)}
	for _, f := range p.faults {
		words = append(words, f.String())
	}
	return strings.Join(words, " ")
}

func parsePlan(text string) (plan, error) {
	words := strings.Fields(text)
	if len(words) == 0 || !slices.Contains(modes, driver.AttachMode(words[0])) {
		return plan{}, fmt.Errorf("%q does not begin with one of %v", text, modes)
	}
	p := plan{mode: driver.AttachMode(words[0])}
	for _, word := range words[1:] {
		verb, rest, _ := strings.Cut(word, "@")
		parts := strings.Split(rest, ":")
		if len(parts) != 3 || !slices.Contains(verbs(p.mode), verb) {
			return plan{}, fmt.Errorf("%q is not VERB@POINT:ACTION:CONTINUATION", word)
		}
		at, err := strconv.Atoi(parts[0])
		if err != nil {
			return plan{}, fmt.Errorf("%q: %w", word, err)
		}
		p.faults = append(p.faults, fault{verb, at, trace.Action(parts[1]), continuation(parts[2])})
	}
	return p, nil
}

// planner says which life is to be led next.
type planner interface {
	next() (plan, bool)
	// learn is told for each fault whether the call came to its point.
	learn(mode driver.AttachMode, f fault, hit bool)
}

// everything walks all points: of each call one after the other, until a call ends before it has come to one.
type everything struct {
	seed  int
	lanes map[driver.AttachMode]map[string]*lane
}

// lane is where the walk of one call has come to, for the faults after which the life goes on and for the others.
type lane struct{ going, ending cursor }

// cursor goes through the faults of a call: at each point one for each way.
type cursor struct {
	ways []way
	at   int // last point
	way  int // next way
	end  int // first point that is known not to be; 0: not known
}

// way is what happens at a point; without a continuation the branches take turns.
type way struct {
	do   trace.Action
	then continuation
}

func (c *cursor) take(turn int) (at int, w way, ok bool) {
	if len(c.ways) == 0 || c.end > 0 && c.at+1 >= c.end && c.way == 0 {
		return 0, way{}, false
	}
	if c.way == 0 {
		c.at++
	}
	w = c.ways[c.way]
	if w.then == "" {
		w.then = branches[(c.at+turn)%len(branches)]
	}
	c.way = (c.way + 1) % len(c.ways)
	return c.at, w, true
}

func newEverything(seed uint64) *everything {
	e := &everything{seed: int(seed % uint64(len(branches))), lanes: map[driver.AttachMode]map[string]*lane{}}
	for _, mode := range modes {
		e.lanes[mode] = map[string]*lane{}
		for _, verb := range verbs(mode) {
			l := &lane{going: cursor{ways: []way{{trace.Kill, again}, {trace.KillAfter, again}, {trace.Fail, again}}}}
			// Between attach and detach mode kubelet is the same as mode controller.
			if mode != driver.AttachKubelet || isControl(verb) {
				l.ending.ways = append(l.ending.ways, way{do: trace.KillAfter})
			}
			if rivals(mode, verb) {
				l.ending.ways = append(l.ending.ways, way{trace.Hold, rival})
			}
			e.lanes[mode][verb] = l
		}
	}
	return e
}

func isControl(verb string) bool { return verb == "attach" || verb == "detach" }

// rivals tells whether a rival can do anything while a call is held: not beside the control plane, where he is on the
// same host and waits for the volume's lock.
func rivals(mode driver.AttachMode, verb string) bool {
	return mode == driver.AttachController && !isControl(verb) || mode == driver.AttachKubelet && isControl(verb) || mode == driver.AttachNone
}

func (e *everything) next() (plan, bool) {
	for _, mode := range modes {
		p := plan{mode: mode}
		for _, last := range verbs(mode) {
			at, w, ok := e.lanes[mode][last].ending.take(e.seed)
			if !ok {
				continue
			}
			for _, verb := range verbs(mode) {
				if verb == last {
					p.faults = append(p.faults, fault{verb, at, w.do, w.then})
					return p, true
				}
				p.add(e, verb)
			}
		}
		for _, verb := range verbs(mode) {
			p.add(e, verb)
		}
		if len(p.faults) > 0 {
			return p, true
		}
	}
	return plan{}, false
}

// add adds a fault after which the life goes on, if there is one left for the call.
func (p *plan) add(e *everything, verb string) {
	if at, w, ok := e.lanes[p.mode][verb].going.take(0); ok {
		p.faults = append(p.faults, fault{verb, at, w.do, w.then})
	}
}

func (e *everything) learn(mode driver.AttachMode, f fault, hit bool) {
	if hit {
		return
	}
	l := e.lanes[mode][f.verb]
	for _, c := range []*cursor{&l.going, &l.ending} {
		if c.end == 0 || f.at < c.end {
			c.end = f.at
		}
	}
}

// sample takes points at random.
type sample struct{ random *rand.Rand }

func newSample(seed uint64) *sample { return &sample{rand.New(rand.NewPCG(seed, 0))} }

// points is about how many a call has.
func points(mode driver.AttachMode, verb string) int {
	switch {
	case mode == driver.AttachNone && verb == "mount":
		return 45
	case verb == "attach":
		return 26
	case verb == "unmount" && mode != driver.AttachNone:
		return 1
	case strings.HasPrefix(verb, "mount"):
		return 4
	}
	return 14
}

func (s *sample) next() (plan, bool) {
	p := plan{mode: modes[s.random.IntN(len(modes))]}
	calls := verbs(p.mode)
	last := s.random.IntN(len(calls))
	for _, verb := range calls[:last+1] {
		do := []trace.Action{trace.Kill, trace.KillAfter, trace.Fail}[s.random.IntN(3)]
		p.faults = append(p.faults, fault{verb, 1 + s.random.IntN(points(p.mode, verb)), do, again})
	}
	end := &p.faults[last]
	switch then := s.random.IntN(len(branches) + 1); {
	case then < len(branches):
		end.then = branches[then]
	case rivals(p.mode, end.verb):
		end.do, end.then = trace.Hold, rival
	}
	return p, true
}

func (s *sample) learn(driver.AttachMode, fault, bool) {}

// single leads one life.
type single struct{ plan *plan }

func (s *single) next() (plan, bool) {
	if s.plan == nil {
		return plan{}, false
	}
	p := *s.plan
	s.plan = nil
	return p, true
}

func (s *single) learn(driver.AttachMode, fault, bool) {}
