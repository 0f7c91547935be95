package model

// An invariant is what must hold in every state; as a set of bits, several.
type invariant uint8

const (
	oneWriter   invariant = 1 << iota // never two live mounts of which one writes
	freshCache                        // nobody mounts what was scanned beside a writer
	keepsClaim                        // who was told success keeps its claim
	nothingLeft                       // when all is over no claim is left
	keepsVolume                       // nothing is deleted under who was told
	somebodyIn                        // from every state, calls that are repeated alone let somebody in

	safe = oneWriter | freshCache | keepsClaim | nothingLeft | keepsVolume
	all  = safe | somebodyIn
)

var invariantNames = map[invariant]string{
	oneWriter: "one writer", freshCache: "nothing stale is mounted", keepsClaim: "who was told keeps its claim",
	nothingLeft: "no claim is left", keepsVolume: "nothing is deleted under who was told", somebodyIn: "somebody gets in",
}

func (i invariant) String() string {
	if name, known := invariantNames[i]; known {
		return name
	}
	return "nothing"
}

// violated is the first of the invariants of one state that does not hold, or 0.
func (sc *scenario) violated(s *state) invariant {
	if writers := s.writes & s.sessions; writers != 0 && s.mounted()&^(writers&-writers) != 0 {
		return oneWriter & sc.checks
	}
	broken := s.broken
	if sc.over(s) && s.claims() {
		broken |= nothingLeft
	}
	if !sc.modeNone {
		broken |= sc.toldInVain(s)
	}
	broken &= sc.checks
	return broken & -broken
}

func (s *state) claims() bool {
	for _, members := range s.members {
		if members != 0 {
			return true
		}
	}
	return s.asking != 0
}

// over: no call is in progress or must be repeated, and nobody has the volume.
func (sc *scenario) over(s *state) bool {
	for i := range sc.who {
		if c := &s.callers[i]; c.at != idle || c.told || c.uncertain {
			return false
		}
	}
	return s.loggedIn == 0 && s.late.kind == idle
}

func (sc *scenario) toldInVain(s *state) (broken invariant) {
	for i, w := range sc.who {
		c := &s.callers[i]
		if !c.told {
			continue
		}
		if !s.there || s.life != c.toldLife {
			broken |= keepsVolume
			continue
		}
		own := (&turn{scenario: sc, s: s, c: c, caller: w}).ownIn(c.toldLife)
		former := formerGroup(w.pv)
		if !(s.refers.has(own) && s.members[own].has(w.node)) && !(s.refers.has(former) && s.members[former].has(w.node)) {
			broken |= keepsClaim
		}
	}
	return broken
}

// served: somebody has what it wants, or there is nothing to have.
func (sc *scenario) served(s *state) bool {
	for i := range sc.who {
		if s.callers[i].told {
			return true
		}
	}
	return !s.there && (!sc.remake || s.remade)
}
