package model

import "slices"

// A move is one step of somebody, as the trace tells it.
type move struct {
	caller   int // the caller, or callers: a node, or the array
	node     uint8
	what     string
	at       step
	group    group
	progress bool // repeating calls alone brings it about: no kill, no detach, no accident
}

type emitter func(state, move)

// successors are all states that one step can make of s.
func (sc *scenario) successors(s *state, out emitter) {
	emit := func(next state, m move) {
		switch sc.lag {
		case exact:
			next.shown = next.sessions
		case oneStepBehind:
			next.shown = s.sessions
		}
		out(next, m)
	}
	for i := range sc.who {
		if s.callers[i].at == idle {
			sc.calls(s, i, emit)
			continue
		}
		sc.steps(s, i, emit)
		sc.kill(s, i, emit)
	}
	for node := range sc.nodes {
		sc.nodeMoves(s, node, emit)
	}
	sc.arrayMoves(s, emit)
	sc.clusterMoves(s, emit)
}

func (sc *scenario) turnOf(s *state, i int) *turn {
	return &turn{scenario: sc, s: s, c: &s.callers[i], caller: sc.who[i], self: i}
}

// steps makes the caller's next step, in each way in which it can be made: a look reads the groups in any order.
func (sc *scenario) steps(s *state, i int, emit emitter) {
	c := &s.callers[i]
	m := move{caller: i, at: c.at, what: words[c.at], group: none, progress: true}
	if !c.at.looks() || c.unread == 0 {
		next := *s
		sc.turnOf(&next, i).take(none)
		switch {
		case c.at.looks():
			m.what = "reads the app instance"
		case c.at == evict:
			m.group, m.node = nextClaim(c.members)
		case c.at == remove || c.at == deleteGroup:
			m.group = lowest(c.unread)
		}
		emit(next, m)
		return
	}
	for g := range group(groupCount) {
		if c.unread.has(g) {
			next := *s
			sc.turnOf(&next, i).take(g)
			m.what, m.group = "reads the members", g
			emit(next, m)
		}
	}
}

func (at step) looks() bool {
	switch at {
	case firstLook, askLook, secondLook, loginLook, evictionLook, deleteLook, offlineLook, collectorLook, formerLook, formerLookAgain:
		return true
	}
	return false
}

func (t *turn) take(g group) {
	switch at := t.c.at; {
	case at >= formerFind:
		t.detachFormer()
	case at >= formerLook:
		t.attachFormer(g)
	case at >= askCluster:
		t.collect(g)
	case at >= deleteLook:
		t.delete(g)
	case at >= unmount:
		t.detach()
	case at >= logIn:
		t.mount(g)
	default:
		t.attach(g)
	}
}

// kill ends a call between two of its steps. The request that it was about to make may be on its way.
func (sc *scenario) kill(s *state, i int, emit emitter) {
	if sc.kills == noKills || sc.kills == oneKill && s.kills > 0 {
		return
	}
	at := s.callers[i].at
	m := move{caller: i, what: "is killed before this", at: at, group: none}
	next := *s
	t := sc.turnOf(&next, i)
	late, sent := t.pending()
	t.over()
	t.c.uncertain = t.caller.kind == attaches
	if sc.kills == oneKill {
		next.kills++
	}
	emit(next, m)
	if sent && s.lates < sc.lates && s.late.kind == idle {
		next.late = late
		next.lates++
		m.what = "is killed, with this on the way"
		emit(next, m)
	}
}

// pending is the request that a call is about to make, if it changes anything.
func (t *turn) pending() (request, bool) {
	c := t.c
	r := request{kind: c.at, group: t.own(), node: t.caller.node, life: c.life}
	switch c.at {
	case add, refer, takeBack, takeOffline, deleteVolume, takeOnline:
	case remove:
		r.kind, r.group = takeBack, lowest(c.unread)
	case evict:
		r.group, r.node = nextClaim(c.members)
	default:
		return r, false
	}
	return r, true
}

// calls are the calls that kubelet, kube-controller-manager or an administrator may make for an idle caller.
func (sc *scenario) calls(s *state, i int, emit emitter) {
	begin := func(at step, what string, progress bool) {
		if !sc.busy(s, i, at) {
			next := *s
			next.callers[i].at = at
			emit(next, move{caller: i, what: what, group: none, progress: progress})
		}
	}
	c, w := &s.callers[i], sc.who[i]
	mounted := (s.writes | s.reads).has(w.node)
	switch {
	case w.kind == deletes:
		begin(deleteLook, "delete is called", true)
	case w.kind == collects:
		begin(askCluster, "collector begins", false)
	case sc.modeNone:
		if !c.told && !mounted {
			begin(firstLook, "mount is called", true)
		}
		if c.told || c.uncertain {
			sc.undo(s, i, unmount, "unmount is called", mounted && !c.told, emit)
		}
	default:
		attach, detach := firstLook, find
		if w.former || sc.upgrade && s.version != 1 {
			attach, detach = formerLook, formerFind
		}
		pod := s.pods>>i&1 == 1
		unused := !mounted && !s.loggedIn.has(w.node)
		if (pod || !sc.pods) && (!c.told && (sc.stale || unused) || c.told && sc.repeat) {
			begin(attach, "attach is called", true)
		}
		if !pod && (c.told || c.uncertain) && (sc.fence || unused || !c.told) {
			sc.undo(s, i, detach, "detach is called", false, emit)
		}
	}
}

// undo begins a detach or unmount: from here on nobody counts on the volume.
func (sc *scenario) undo(s *state, i int, at step, what string, progress bool, emit emitter) {
	if sc.busy(s, i, at) {
		return
	}
	next := *s
	for j, w := range sc.who {
		if w.same(sc.who[i]) {
			next.callers[j].told, next.callers[j].uncertain, next.callers[j].toldLife = false, false, 0
			next.reported &^= 1 << j
		}
	}
	next.callers[i].at, next.callers[i].uncertain = at, true
	emit(next, move{caller: i, what: what, group: none, progress: progress})
}

// busy reports whether another call holds the lock that the caller needs: that of its PersistentVolume and node, or that of
// the volume's delete. Without the lock a detach still waits for the others, and they for it: Kubernetes sees to that.
func (sc *scenario) busy(s *state, i int, begins step) bool {
	me := sc.who[i]
	for j, w := range sc.who {
		at := s.callers[j].at
		if j == i || at == idle || w.pv != me.pv || w.node != me.node || (w.kind == deletes) != (me.kind == deletes) {
			continue
		}
		collector := w.kind == collects || me.kind == collects
		switch {
		case collector && !sc.collectorUnlocked, !collector && !sc.noLock, !collector && (at.detaches() || begins.detaches()):
			return true
		}
	}
	return false
}

func (at step) detaches() bool {
	switch at {
	case unmount, find, remove, eraseDetached, formerFind, formerRemove:
		return true
	}
	return false
}

func (sc *scenario) nodeMoves(s *state, node uint8, emit emitter) {
	me := only(node)
	say := func(what string, progress bool, change func(*state)) {
		next := *s
		change(&next)
		emit(next, move{caller: len(sc.who), node: node, what: what, group: none, progress: progress})
	}
	in, session := s.loggedIn.has(node), s.sessions.has(node)
	letIn := s.admitted().has(node) && s.online
	for i, w := range sc.who {
		c := &s.callers[i]
		if sc.modeNone || w.kind != attaches || w.node != node {
			continue
		}
		mounted := (s.writes | s.reads).has(node)
		if c.told && !mounted && !in && letIn && s.life == c.toldLife {
			say("logs in", false, func(s *state) { s.loggedIn |= me; s.sessions |= me })
		}
		if c.told && !mounted && session {
			say("mounts", false, func(s *state) { s.mount(w) })
		}
		if in {
			say("unmounts and logs out", !c.told, func(s *state) { s.unmount(node); s.logOut(node) })
		}
	}
	if in && !session && letIn {
		say("logs in again by itself", false, func(s *state) { s.sessions |= me })
	}
	if session && s.breaks < sc.breaks {
		say("loses its line", false, func(s *state) { s.sessions &^= me; s.breaks++ })
	}
	if in && sc.nodesDie {
		say("dies", false, func(s *state) {
			s.unmount(node)
			s.logOut(node)
			for i, w := range sc.who {
				if w.kind == attaches && w.node == node {
					s.callers[i] = caller{uncertain: true}
				}
			}
		})
	}
}

func (sc *scenario) arrayMoves(s *state, emit emitter) {
	m := move{caller: len(sc.who), node: maxNodes, group: none, progress: true}
	for node := range sc.nodes {
		if sc.lazyEnd && s.sessions.has(node) && !s.admitted().has(node) {
			next := *s
			next.sessions &^= only(node)
			m.what, m.node = "has its session ended by the array", node
			emit(next, m)
		}
	}
	m.node = maxNodes
	if sc.lag == anyTimeBehind && s.shown != s.sessions {
		next := *s
		next.shown = s.sessions
		m.what = "shows the sessions as they are"
		emit(next, m)
	}
	if s.late.kind != idle {
		next := *s
		sc.carryOut(&next)
		m.what, m.at, m.group = "carries out what was on the way", s.late.kind, s.late.group
		emit(next, m)
	}
}

func (sc *scenario) carryOut(s *state) {
	r := s.late
	s.late = request{}
	same := s.there && s.life == r.life
	switch r.kind {
	case add:
		s.add(r.group, r.node)
	case refer:
		if same && s.exists.has(r.group) {
			s.refers |= r.group.one()
		}
	case evict, takeBack:
		if r.kind == evict && s.mounted().has(r.node) {
			s.broken |= keepsClaim
		}
		s.members[r.group] &^= only(r.node)
		sc.endSessions(s)
	case takeOffline:
		if same && s.sessions == 0 {
			s.online = false
		}
	case takeOnline:
		if same {
			s.online = true
		}
	case deleteVolume:
		if same && !s.online {
			(&turn{scenario: sc, s: s}).deleted()
		}
	}
}

// clusterMoves: pods come and go, nodes' statuses follow, versions change.
func (sc *scenario) clusterMoves(s *state, emit emitter) {
	for i, w := range sc.who {
		bit := uint8(1) << i
		if !sc.pods || w.kind != attaches {
			continue
		}
		next := *s
		next.pods ^= bit
		what := "a pod comes"
		if s.pods&bit != 0 {
			what = "the pod goes"
		}
		emit(next, move{caller: i, what: what, group: none, progress: s.pods&bit == 0})
		if s.callers[i].told && s.reported&bit == 0 {
			next := *s
			next.reported |= bit
			emit(next, move{caller: i, what: "the node's status says that it is attached", group: none})
		}
	}
	last := uint8(0)
	if sc.upgrade {
		last = 1
	}
	if sc.goBack {
		last = 2
	}
	if s.version < last && !(sc.drains && s.calling()) {
		next := *s
		next.version++
		emit(next, move{caller: len(sc.who), node: maxNodes, what: [...]string{"today's version is installed", "the former version is put back"}[s.version], group: none})
	}
}

func (s *state) calling() bool {
	return slices.ContainsFunc(s.callers[:], func(c caller) bool { return c.at != idle })
}
