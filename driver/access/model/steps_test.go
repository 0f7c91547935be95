package model

// A step is what a caller does next.
type step uint8

const (
	idle step = iota

	// attach, and mount in mode none
	firstLook
	ask
	askLook
	note
	add
	refer
	secondLook
	takeBack
	erase
	askNoMore
	answer

	// mount
	logIn
	loginLook
	evict
	evictionLook
	scan
	mount
	logOut

	// detach, and unmount in mode none
	unmount
	find
	remove
	eraseDetached

	// delete
	deleteLook
	takeOffline
	offlineLook
	deleteVolume
	deleteGroup
	takeOnline
	searchGroups
	confirmGone

	// orphan collector
	askCluster
	collectorLook
	collect

	// attach and detach of the former version
	formerLook
	formerMake
	formerAdd
	formerRefer
	formerLookAgain
	formerLeave
	formerFind
	formerRemove
)

var words = [...]string{
	firstLook: "first look", ask: "asks in the group that grants nothing", askLook: "look after asking",
	note: "notes the intent on its host", add: "adds its claim", refer: "makes the policy refer to its group",
	secondLook: "second look", takeBack: "takes its claim back", erase: "erases the note",
	askNoMore: "leaves the group that grants nothing", answer: "answers Success",
	logIn: "logs in, without a LUN", loginLook: "look after the login", evict: "evicts", evictionLook: "look after the eviction",
	scan: "scans the LUN", mount: "mounts, and answers Success", logOut: "logs out",
	unmount: "unmounts and logs out", find: "finds its claims", remove: "removes its claim", eraseDetached: "erases the note",
	deleteLook: "first look", takeOffline: "takes the volume offline", offlineLook: "second look", deleteVolume: "deletes the volume",
	deleteGroup: "deletes a group", takeOnline: "takes the volume online again", searchGroups: "searches the groups by the PersistentVolume's name",
	confirmGone: "looks again whether the volume is gone",
	askCluster:  "asks the cluster: no pod, not attached", collectorLook: "looks", collect: "removes the claim",
	formerLook: "first look", formerMake: "makes its group, with itself as a member", formerAdd: "adds its claim",
	formerRefer: "makes the policy refer to its group", formerLookAgain: "second look", formerLeave: "takes its claim back",
	formerFind: "finds its claim", formerRemove: "removes its claim",
}

// A plan says what a look reads besides the groups that the policy refers to, and what it knows already.
type plan struct{ also, known groups }

// A turn is one step of one caller: s is the state that comes of it.
type turn struct {
	*scenario
	s      *state
	c      *caller
	caller who
	self   int
}

func (t *turn) me() nodes { return only(t.caller.node) }

// own is the group in which the caller claims the volume.
func (t *turn) own() group { return t.ownIn(t.c.life) }

func (t *turn) ownIn(life uint8) group {
	if t.groupsByName {
		life = 0
	}
	return groupOf(t.caller.pv, life, t.caller.readOnly)
}

// ownBoth are its groups of both kinds of access.
func (t *turn) ownBoth() groups {
	rw := t.own() &^ 1
	return rw.one() | (rw + 1).one()
}

func (t *turn) goTo(next step) {
	t.c.look = look{}
	t.c.at = next
}

// lookOn makes the next request of a look and reports whether it was the last. The app instance comes first, and last: a
// session may outlast its claim, so that claims that were read after the sessions do not show who is there. After the login
// of mode none the members come last: there a claim precedes its session, and an own claim that was read before the
// sessions may have been evicted since.
func (t *turn) lookOn(g group, p plan) bool {
	l, s := &t.c.look, t.s
	if l.unread != 0 {
		l.readMembers(s, g, t.filter)
		return l.unread == 0 && t.endsWithMembers()
	}
	byName := t.c.at == deleteLook || t.c.at == formerLookAgain || t.c.at == secondLook && t.secondLookByName
	if !l.begun {
		l.begun, l.referred = true, s.refers
	}
	l.found = s.there && (s.life == t.c.life || byName)
	l.online, l.refers, l.sessions = l.found && s.online, s.refers, s.shown
	l.unread = (s.refers | p.also) &^ l.read &^ p.known
	return l.unread == 0 || !l.found
}

func (t *turn) endsWithMembers() bool {
	if t.c.at == loginLook || t.c.at == evictionLook {
		return !t.appLastAfterLogin
	}
	return t.membersLast
}

func (l *look) readMembers(s *state, g group, all bool) {
	for other := range group(groupCount) {
		if other == g || all && l.unread.has(other) {
			l.members[other] = s.members[other]
			l.read |= other.one()
		}
	}
	l.unread &^= l.read
}

// against are the claims that stand against the caller's, by group, and the sessions without a claim: everybody else,
// but readers share with readers; and the caller's own node under another name.
func (t *turn) against() (claims [groupCount]nodes, strangers nodes) {
	var claimed nodes
	for g, members := range t.c.members {
		g := group(g)
		claimed |= members
		if !t.caller.readOnly || !g.readOnly() {
			claims[g] = members &^ t.me()
		}
		if g.pv() != t.caller.pv || g.former() && t.formerForeign {
			claims[g] |= members & t.me()
		}
	}
	return claims, t.c.sessions &^ claimed &^ t.me()
}

func (t *turn) conflict() bool {
	claims, strangers := t.against()
	return claims != [groupCount]nodes{} || strangers != 0
}

// claimed reports whether the look found the caller's own claim.
func (t *turn) claimed() bool { return t.c.members[t.own()].has(t.caller.node) }

// removeClaim also ends the session of who is let in no more, at once or later.
func (t *turn) removeClaim(g group, node uint8) {
	t.s.members[g] &^= only(node)
	t.endSessions(t.s)
}

func (sc *scenario) endSessions(s *state) {
	if !sc.lazyEnd || !s.there {
		s.sessions &= s.admitted()
	}
}

// tell is the answer Success.
func (t *turn) tell() {
	t.c.told, t.c.toldLife, t.c.uncertain = true, t.c.life, false
	if t.promptStatus {
		t.s.reported |= 1 << t.self
	}
	if t.modeNone && !t.s.members[t.own()].has(t.caller.node) {
		t.s.broken |= keepsClaim
	}
}

// over ends the call.
func (t *turn) over() {
	t.goTo(idle)
	t.c.life, t.c.succeeds = 0, false
}

func (t *turn) fail() {
	t.c.uncertain = true
	t.over()
}
