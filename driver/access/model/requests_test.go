package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a call costs that nobody disturbs, in requests to the array, where one request reads the members of several groups.
func TestRequests(t *testing.T) {
	for _, test := range []struct {
		name                    string
		protocol                protocol
		modeNone                bool
		first, repeated, detach int
	}{
		{name: "as written", first: 6, repeated: 3, detach: 2},
		{name: "ask first", protocol: protocol{askFirst: true}, first: 9, repeated: 3, detach: 2},
		{name: "mode none", modeNone: true, first: 7, repeated: 0, detach: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			sc := scenario{callers: "0A", world: world{filter: true, modeNone: test.modeNone}, protocol: test.protocol}.parse()
			s := sc.start()
			require.Equal(t, test.first, sc.alone(&s, firstLook), "first attach")
			require.True(t, s.callers[0].told)
			leave := unmount
			if !test.modeNone {
				leave = find
				require.Equal(t, test.repeated, sc.alone(&s, firstLook), "attach, repeated")
			}
			require.Equal(t, test.detach, sc.alone(&s, leave), "detach")
			require.False(t, s.claims())
		})
	}
}

// alone lets the first caller make a whole call, and counts its requests.
func (sc *scenario) alone(s *state, begin step) (requests int) {
	c := &s.callers[0]
	for c.at = begin; c.at != idle; {
		if !c.at.local() {
			requests++
		}
		sc.turnOf(s, 0).take(lowest(c.unread))
		s.shown = s.sessions
	}
	return requests
}

// local steps ask nothing of the array: they happen on the caller's host.
func (at step) local() bool {
	switch at {
	case note, erase, eraseDetached, answer, logIn, scan, mount, logOut, unmount:
		return true
	}
	return false
}
