package model

// Collect takes out a claim that was never reported: no pod uses the volume, the node's status does not show it, and there
// is no session. It is a question to the model, not a part of the protocol.
func (t *turn) collect(g group) {
	c, s := t.c, t.s
	switch c.at {
	case askCluster:
		if bit := t.subject(); s.pods&bit != 0 || s.reported&bit != 0 {
			t.over()
			return
		}
		t.goTo(collectorLook)
	case collectorLook:
		if !c.begun {
			c.life = s.life
		}
		if !t.lookOn(g, plan{also: t.ownBoth()}) {
			return
		}
		if !c.found || !t.claimed() || c.sessions.has(t.caller.node) {
			t.over()
			return
		}
		t.goTo(collect)
	case collect:
		t.removeClaim(t.own(), t.caller.node)
		t.over()
	}
}

// subject is the caller whose claim the collector judges, as a bit.
func (t *turn) subject() uint8 {
	for i, w := range t.who {
		if w.kind == attaches && w.pv == t.caller.pv && w.node == t.caller.node {
			return 1 << i
		}
	}
	return 0
}
