package model

// The former version of attach and detach, for the upgrade: one group for each PersistentVolume, whichever volume it leads
// to. It adds at once where it sees no group and no session, and looks again only at the groups of others.
func (t *turn) attachFormer(g group) {
	c, s := t.c, t.s
	own := formerGroup(t.caller.pv)
	switch c.at {
	case formerLook:
		if !c.begun && !t.openVolume() {
			return
		}
		if t.formerLook(g) {
			t.afterFormerLook()
		}
	case formerMake:
		if s.exists.has(own) { // somebody made it meanwhile: the look goes on
			c.at, c.unread = formerLook, own.one()
			return
		}
		s.add(own, t.caller.node)
		t.goTo(formerRefer)
	case formerAdd:
		referred := c.refers.has(own)
		s.add(own, t.caller.node)
		switch {
		case s.members[own] != t.me():
			t.goTo(formerLeave)
		case referred:
			t.goTo(formerLookAgain)
		default:
			t.goTo(formerRefer)
		}
	case formerRefer:
		if !s.there || !s.exists.has(own) {
			t.goTo(formerLeave)
			return
		}
		s.refers |= own.one()
		t.goTo(formerLookAgain)
	case formerLookAgain:
		if !t.lookOn(g, plan{known: own.one()}) && !(c.begun && c.unread == 0) {
			return
		}
		c.sessions = 0 // it does not look at them here
		if c.found && c.online && c.refers.has(own) && !t.othersOf(own) {
			t.goTo(answer)
			return
		}
		t.goTo(formerLeave)
	case formerLeave:
		t.removeClaim(own, t.caller.node)
		t.fail()
	}
}

// formerLook reads the app instance, and then the members of the groups that it knows.
func (t *turn) formerLook(g group) bool {
	c, s := t.c, t.s
	if c.unread != 0 {
		c.readMembers(s, g, t.filter)
		return c.unread == 0
	}
	c.begun, c.found, c.online = true, true, true
	c.refers, c.sessions = s.refers, s.shown
	if c.refers == 0 && c.sessions&^t.me() == 0 {
		c.at = formerMake
		return false
	}
	c.unread = c.refers | formerGroup(t.caller.pv).one()
	return false
}

func (t *turn) afterFormerLook() {
	c := t.c
	own := formerGroup(t.caller.pv)
	referred, mine := c.refers.has(own), c.members[own].has(t.caller.node)
	rivals := c.members[own] &^ t.me()
	switch {
	case t.othersOf(own) || rivals != 0:
		if mine && (!referred || !t.othersOf(own)) && !c.sessions.has(t.caller.node) {
			t.goTo(formerLeave)
			return
		}
		t.fail()
	case mine && referred:
		t.goTo(answer)
	case mine:
		t.goTo(formerRefer)
	default:
		refers := c.refers
		t.goTo(formerAdd)
		c.refers = refers & own.one()
	}
}

// othersOf: somebody is let in by another group, or has a session without being a member of the caller's.
func (t *turn) othersOf(own group) bool {
	for g, members := range t.c.members {
		if group(g) != own && members != 0 {
			return true
		}
	}
	return t.c.sessions&^t.c.members[own]&^t.me() != 0
}

func (t *turn) detachFormer() {
	own := formerGroup(t.caller.pv)
	switch t.c.at {
	case formerFind:
		if !t.s.members[own].has(t.caller.node) {
			t.detached()
			return
		}
		t.goTo(formerRemove)
	case formerRemove:
		t.removeClaim(own, t.caller.node)
		t.detached()
	}
}
