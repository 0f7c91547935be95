package model

// Attach: look, add mine, look again, take mine back. Attach mode none shares it as far as the second look, and goes on in
// mount_test.go.
func (t *turn) attach(g group) {
	c, s := t.c, t.s
	switch c.at {
	case firstLook:
		if !c.begun && !t.openVolume() {
			return
		}
		if t.noFirstLook {
			t.c.refers = s.refers
			t.begin()
			return
		}
		if t.lookOn(g, plan{also: t.unreferred()}) || t.askFirst && t.unclaimed() {
			t.afterFirstLook()
		}
	case ask:
		refers := c.refers
		s.asking |= t.me()
		if s.asking != t.me() {
			t.end(false)
			return
		}
		t.goTo(askLook) // what was read before is worth nothing any more
		c.begun, c.unread = true, refers|t.ownBoth()
	case askLook:
		if !t.lookOn(g, plan{also: t.ownBoth()}) {
			return
		}
		switch {
		case !c.found || !c.online || t.conflict():
			t.end(false)
		default:
			t.begin()
		}
	case note:
		t.book().noted = true
		c.at = t.afterNote(c.refers)
	case add:
		t.addClaim()
	case refer:
		if !s.there || s.life != c.life || !s.exists.has(t.own()) && !t.referFirst {
			t.leave()
			return
		}
		s.exists |= t.own().one()
		s.refers |= t.own().one()
		if t.referFirst {
			c.at = add
		} else {
			t.joined()
		}
	case secondLook:
		own := t.own().one()
		if t.rereadOwn {
			own = 0
		}
		if t.lookOn(g, plan{known: own}) {
			t.afterSecondLook()
		}
	case takeBack:
		t.removeClaim(t.own(), t.caller.node)
		if t.book().noted {
			t.goTo(erase)
			return
		}
		t.end(false)
	case erase:
		t.book().noted = false
		switch {
		case c.succeeds && t.eraseAfterTelling:
			t.over()
		case !c.succeeds && t.eraseBeforeRemoval:
			t.goTo(takeBack)
		default:
			t.end(c.succeeds)
		}
	case askNoMore:
		s.asking &^= t.me()
		t.end(c.succeeds)
	case answer:
		t.tell()
		if t.eraseAfterTelling && t.book().noted {
			c.at = erase
			return
		}
		t.over()
	}
}

// openVolume is the way to the first look: it finds the volume, or makes it.
func (t *turn) openVolume() bool {
	s := t.s
	if !s.there && t.remake && !s.remade {
		s.there, s.online, s.life, s.remade, s.refers = true, true, 1, true, 0
	}
	if s.there && !s.online && t.bringsOnline {
		s.online = true
		return false // the look follows
	}
	if !s.there || !s.online {
		t.end(false)
		return false
	}
	t.c.life = s.life
	return true
}

func (t *turn) unreferred() groups {
	if t.noUnreferred {
		return 0
	}
	also := t.ownBoth()
	if t.upgrade {
		also |= formerGroup(t.caller.pv).one()
	}
	return also
}

func (t *turn) afterFirstLook() {
	c := t.c
	mine, published := t.claimed(), t.published(t.own())
	if former := formerGroup(t.caller.pv); t.upgrade && !t.formerForeign && !t.caller.readOnly && t.published(former) {
		mine, published = true, true
	}
	conflict := !c.found || !c.online || t.conflict()
	if t.modeNone && c.found && c.online {
		conflict = !t.evictable()
	}
	switch {
	case conflict && t.modeNone && !t.noCleanUp && (mine || t.s.loggedIn.has(t.caller.node)):
		t.goTo(logOut)
	case conflict && mine && t.mayWithdraw():
		t.leave()
	case conflict:
		t.end(false)
	case published && t.modeNone:
		t.goTo(logIn)
	case published:
		t.end(true)
	default:
		t.begin()
	}
}

// published: the own claim was there and referred to before the members of other groups were read, so that a caller that came
// later has seen it. A reference that is seen only afterwards may be another caller's, of a moment ago.
func (t *turn) published(own group) bool {
	referred := t.c.referred
	if t.referenceSeenLast {
		referred = t.c.refers
	}
	return t.c.members[own].has(t.caller.node) && referred.has(own)
}

// begin is what follows when no claim is in the way: it remembers only whether the policy refers to the own group.
func (t *turn) begin() {
	referred := t.c.refers & t.own().one()
	switch {
	case t.askFirst && t.c.at != askLook:
		referred = t.c.refers
		t.goTo(ask)
	case !t.modeNone && !t.book().noted:
		t.goTo(note)
	default:
		t.goTo(t.afterNote(referred))
	}
	t.c.refers = referred
}

// unclaimed: a caller that asks first looks again after it, so that the first look can end with the members.
func (t *turn) unclaimed() bool { return t.c.unread == 0 && !t.claimed() }

func (t *turn) afterNote(referred groups) step {
	if t.referFirst && referred == 0 {
		return refer
	}
	return add
}

// mayWithdraw: only a claim that a note shows was never reported.
func (t *turn) mayWithdraw() bool {
	switch {
	case t.neverWithdrawn:
		return false
	case t.withdrawnUnnoted:
		return !t.c.sessions.has(t.caller.node)
	}
	return t.book().noted
}

func (t *turn) addClaim() {
	c, own := t.c, t.own()
	t.s.add(own, t.caller.node)
	c.members[own] = t.s.members[own] // the answer
	conflict := t.conflict() && !t.modeNone
	referred := c.refers.has(own) || t.referFirst
	switch {
	case conflict:
		t.leave()
	case !referred:
		c.at = refer
	default:
		t.joined()
	}
}

func (t *turn) joined() {
	c, own := t.c, t.own()
	members := c.members[own]
	switch {
	case t.modeNone && t.evictBeforeLogin:
		t.goTo(loginLook)
	case t.modeNone:
		t.goTo(logIn)
	case t.noSecondLook:
		t.end(true)
	default:
		t.goTo(secondLook)
		c.members[own] = members
	}
}

func (t *turn) afterSecondLook() {
	c := t.c
	usable := c.found && (t.stateIgnored || c.online && c.refers.has(t.own()))
	if !usable || t.conflict() || !t.claimed() {
		t.leave()
		return
	}
	t.end(true)
}

// leave takes the claim back, and then erases the note.
func (t *turn) leave() {
	t.goTo(takeBack)
	if t.eraseBeforeRemoval && t.book().noted {
		t.c.at = erase
	}
}

// end tidies up, one step after the other, and then answers. The note is erased before success is told: a claim that was
// told and is still noted could be withdrawn. A call that fails erases it only after its claim was taken back.
func (t *turn) end(succeeds bool) {
	t.goTo(idle)
	t.c.succeeds = succeeds
	switch {
	case succeeds && t.book().noted && !t.eraseAfterTelling:
		t.c.at = erase
	case t.s.asking&t.me() != 0:
		t.c.at = askNoMore
	case succeeds:
		t.c.at = answer
	default:
		if t.eraseOnRefusal {
			t.book().noted = false
		}
		t.fail()
	}
}

// detach knows the PersistentVolume and the node, not the volume.
func (t *turn) detach() {
	c, s := t.c, t.s
	switch c.at {
	case unmount:
		s.unmount(t.caller.node)
		s.logOut(t.caller.node)
		c.at = find
	case find:
		for g := range group(groupCount) {
			if g.pv() == t.caller.pv && (!g.former() || t.upgrade) && s.members[g].has(t.caller.node) {
				c.unread |= g.one()
			}
		}
		s.asking &^= t.me()
		t.removed()
	case remove:
		g := lowest(c.unread)
		c.unread &^= g.one()
		t.removeClaim(g, t.caller.node)
		t.removed()
	case eraseDetached:
		t.book().noted = false
		t.detached()
	}
}

func (t *turn) removed() {
	switch {
	case t.c.unread != 0:
		t.c.at = remove
	case t.book().noted:
		t.goTo(eraseDetached)
	default:
		t.detached()
	}
}

func (t *turn) detached() {
	t.c.uncertain = false
	t.over()
}
