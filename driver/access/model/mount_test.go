package model

// Mount is attach mode none after the claim was added: the node logs in without a LUN, so that who evicts is seen, looks
// for the others, evicts claims without a session, looks again, and only then scans the LUN.
func (t *turn) mount(g group) {
	c, s := t.c, t.s
	switch c.at {
	case logIn:
		s.besideWriter &^= t.me()
		if !s.admitted().has(t.caller.node) || !s.online || s.life != c.life {
			t.goTo(logOut)
			return
		}
		s.loggedIn |= t.me()
		s.sessions |= t.me()
		t.goTo(loginLook)
		if t.noLookAfterLogin || t.evictBeforeLogin {
			t.goTo(scan)
		}
	case loginLook:
		if t.lookOn(g, plan{}) {
			t.afterLoginLook()
		}
	case evict:
		t.evict()
	case evictionLook:
		if !t.lookOn(g, plan{}) {
			return
		}
		next := t.beforeScan()
		if t.scanBeforeLastLook {
			next = mount
		}
		if !t.usable() || t.conflict() {
			next = logOut
		}
		t.goTo(next)
	case scan:
		if !s.sessions.has(t.caller.node) {
			t.goTo(logOut)
			return
		}
		if s.writesBeside(t.caller.node) {
			s.besideWriter |= t.me()
		}
		t.goTo(mount)
		if t.scanBeforeLastLook {
			t.goTo(evictionLook)
		}
	case mount:
		if !s.sessions.has(t.caller.node) {
			t.goTo(logOut)
			return
		}
		t.mounted()
	case logOut:
		s.logOut(t.caller.node)
		t.goTo(takeBack)
	}
}

func (t *turn) mounted() {
	s := t.s
	if s.besideWriter.has(t.caller.node) {
		s.broken |= freshCache
	}
	s.mount(t.caller)
	t.tell()
	t.over()
}

func (s *state) mount(w who) {
	if w.readOnly {
		s.reads |= only(w.node)
	} else {
		s.writes |= only(w.node)
	}
}

// usable: the volume is there and lets me in, as far as the look says.
func (t *turn) usable() bool {
	return t.c.found && t.c.online && t.c.refers.has(t.own()) && (t.ownClaimIgnored || t.claimed())
}

// evictable: nobody is in the way who cannot be evicted. A session keeps its claim, and so does a group that is not ours; where
// the array shows no sessions, every claim stands.
func (t *turn) evictable() bool {
	claims, strangers := t.against()
	for g, claim := range claims {
		if claim&t.c.sessions != 0 || claim != 0 && group(g).pv() != t.caller.pv {
			return false
		}
	}
	blind := t.lag == neverShown && claims != [groupCount]nodes{} && !t.evictsBlindly
	return strangers == 0 && !blind
}

func (t *turn) afterLoginLook() {
	claims, _ := t.against()
	usable, evictable := t.usable(), t.evictable()
	switch {
	case !usable || !evictable:
		t.goTo(logOut)
	case claims != [groupCount]nodes{}:
		t.goTo(evict)
		t.c.members = claims
	default:
		t.goTo(t.beforeScan())
	}
}

func (t *turn) beforeScan() step {
	if t.evictBeforeLogin {
		return logIn
	}
	return scan
}

// evict takes out the next of the claims that the look left in c.members.
func (t *turn) evict() {
	c, s := t.c, t.s
	g, node := nextClaim(c.members)
	if s.mounted().has(node) {
		s.broken |= keepsClaim
	}
	t.removeClaim(g, node)
	c.members[g] &^= only(node)
	if c.members != [groupCount]nodes{} {
		return
	}
	t.goTo(evictionLook)
	if t.scanBeforeLastLook || t.noLookAfterEviction {
		t.goTo(scan)
	}
}

func nextClaim(claims [groupCount]nodes) (group, uint8) {
	for g, members := range claims {
		for node := range uint8(maxNodes) {
			if members.has(node) {
				return group(g), node
			}
		}
	}
	panic("no claim")
}
