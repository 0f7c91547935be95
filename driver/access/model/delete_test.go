package model

import "math/bits"

func lowest(g groups) group { return group(bits.TrailingZeros16(uint16(g))) }

// Delete takes the volume offline between two looks: who was let in before the second look is seen by it, who is let in
// after it sees that the volume is offline.
func (t *turn) delete(g group) {
	c, s := t.c, t.s
	switch c.at {
	case deleteLook:
		if !c.begun {
			c.life = s.life
		}
		if t.lookOn(g, t.deletePlan()) {
			t.afterDeleteLook()
		}
	case takeOffline:
		next := offlineLook
		if s.there && s.life == c.life {
			if s.sessions != 0 { // the array refuses
				next = takeOnline
			} else {
				s.online = false
			}
		}
		t.goTo(next)
	case offlineLook:
		if !t.lookOn(g, t.deletePlan()) {
			return
		}
		switch {
		case !c.found:
			t.over()
		case t.inUse():
			t.goTo(takeOnline)
		default:
			t.goTo(deleteVolume)
		}
	case deleteVolume:
		if !s.there || s.life != c.life || s.online && !t.deletesOnline { // the array refuses
			t.over()
			return
		}
		t.deleted()
		own := s.exists & t.ownBoth()
		t.goTo(deleteGroup)
		t.deleteNext(own)
	case deleteGroup:
		g := lowest(c.unread)
		if !s.refers.has(g) || t.deletesReferred {
			s.exists &^= g.one()
			s.refers &^= g.one()
			s.members[g] = 0
			t.endSessions(s)
		}
		t.deleteNext(c.unread &^ g.one())
	case takeOnline:
		if s.there && s.life == c.life {
			s.online = true
		}
		t.over()
	case searchGroups:
		found := s.exists & groupsOf(t.caller.pv)
		t.goTo(deleteGroup)
		if t.deletesOld {
			t.goTo(confirmGone)
		}
		t.deleteNext(found)
	case confirmGone:
		if s.there {
			t.over()
			return
		}
		c.at = deleteGroup
	}
}

func (t *turn) deletePlan() plan { return plan{also: t.ownBoth()} }

func (t *turn) deleteNext(left groups) {
	t.c.unread = left
	if left == 0 {
		t.over()
	}
}

func (t *turn) afterDeleteLook() {
	c := t.c
	switch {
	case !c.found && t.deletesSearched:
		t.goTo(searchGroups)
	case !c.found:
		t.over()
	case t.inUse() && !c.online: // by an earlier delete that was killed
		t.goTo(takeOnline)
	case t.inUse():
		t.over()
	default:
		t.goTo(takeOffline)
	}
}

// inUse: in mode none a claim without a session does not prevent a delete.
func (t *turn) inUse() bool {
	return t.c.sessions != 0 || !t.modeNone && t.c.members != [groupCount]nodes{}
}

func (t *turn) deleted() {
	s := t.s
	for i := range t.who {
		if c := &s.callers[i]; c.told && c.toldLife == s.life {
			s.broken |= keepsVolume
		}
	}
	if s.mounted() != 0 {
		s.broken |= keepsVolume
	}
	s.there, s.online, s.refers, s.sessions = false, false, 0, 0
}
