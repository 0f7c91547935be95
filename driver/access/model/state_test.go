// Package model asks whether the protocol by which nodes share a volume is right. It walks, breadth first, through every
// state that some callers, nodes and an array can reach when their steps interleave freely and any call is killed between
// any two steps, and prints a shortest way to a state that must not be. A step is one request to the array, one record on
// the caller's host, or one change of a node. There is no clock: every step may take arbitrarily long.
//
// Whoever changes a rule of the protocol changes it here first, in attach_test.go, mount_test.go or delete_test.go, and
// runs `make model`. scenarios_test.go holds the questions that were asked, with their answers.
package model

const (
	maxNodes   = 3
	maxCallers = 4
	groupCount = 10
)

// A node is 0, 1 or 2; nodes is a set of them.
type nodes uint8

func only(node uint8) nodes         { return 1 << node }
func (n nodes) has(node uint8) bool { return n&only(node) != 0 }

// A group is an initiator group: of PersistentVolume 0 or 1, for one life of the volume (its UUID), read-write or read-only.
// The last two are the former protocol's: one for each PersistentVolume, whichever volume it leads to. groups is a set.
type (
	group  uint8
	groups uint16
)

const none group = 255

func groupOf(pv, life uint8, readOnly bool) group {
	g := group(pv<<2 | life<<1)
	if readOnly {
		g++
	}
	return g
}

func formerGroup(pv uint8) group       { return 8 + group(pv) }
func (g group) former() bool           { return g >= 8 }
func (g group) readOnly() bool         { return !g.former() && g&1 == 1 }
func (g group) one() groups            { return 1 << g }
func (g groups) has(member group) bool { return g&member.one() != 0 }

func (g group) pv() uint8 {
	if g.former() {
		return uint8(g - 8)
	}
	return uint8(g >> 2)
}

// groupsOf are all groups of a PersistentVolume that today's protocol makes.
func groupsOf(pv uint8) groups { return 0xF << (4 * pv) }

// state is everything that matters, at one moment. It holds no pointers, so that two states can be compared.
type state struct {
	// The array: one volume, its initiator groups, its sessions.
	exists   groups
	refers   groups // groups to which the volume's ACL policy refers
	members  [groupCount]nodes
	asking   nodes // members of the group that grants nothing (askFirst)
	there    bool
	online   bool
	life     uint8
	sessions nodes
	shown    nodes   // the sessions as the array shows them
	late     request // of a killed call, not carried out yet

	// The nodes.
	loggedIn     nodes // the initiator logs in again by itself whenever it is let in
	writes       nodes // has the volume mounted read-write
	reads        nodes // has it mounted read-only
	besideWriter nodes // scanned the LUN while another node wrote

	// The cluster: by caller, whether a pod uses the volume, and whether the node's status says that it is attached.
	pods, reported uint8
	version        uint8 // 0 before the upgrade, 1 after it, 2 after going back

	callers [maxCallers]caller
	broken  invariant // what a step did that it must not
	kills   uint8
	breaks  uint8
	lates   uint8
	remade  bool
}

// A caller is whoever calls the driver for one PersistentVolume and node, or for a delete, and the call in progress.
type caller struct {
	look
	at        step
	life      uint8 // the volume that the call goes on with
	succeeds  bool  // how the call ends, while it tidies up
	told      bool  // success was told, and nothing undid it
	toldLife  uint8
	noted     bool // the intent is noted on the host
	uncertain bool // a call failed or was killed, and no detach followed
}

// A look is what a call has read of the volume and its groups.
type look struct {
	refers   groups // what the policy refers to, when it was read last
	referred groups // ... and when it was read first, before any members
	read     groups
	unread   groups
	members  [groupCount]nodes
	sessions nodes
	begun    bool
	found    bool
	online   bool
}

// A request that a killed call had sent when it was killed.
type request struct {
	kind  step
	group group
	node  uint8
	life  uint8
}

// admitted are the nodes that the volume's ACL policy lets in.
func (s *state) admitted() (in nodes) {
	for g := range group(groupCount) {
		if s.there && s.refers.has(g) {
			in |= s.members[g]
		}
	}
	return in
}

// mounted are the nodes that have the volume mounted and a session to it.
func (s *state) mounted() nodes { return (s.writes | s.reads) & s.sessions }

func (s *state) writesBeside(node uint8) bool { return s.writes&s.sessions&^only(node) != 0 }

func (s *state) add(g group, node uint8) {
	s.exists |= g.one()
	s.members[g] |= only(node)
}

func (s *state) logOut(node uint8) {
	gone := only(node)
	s.loggedIn &^= gone
	s.sessions &^= gone
	s.besideWriter &^= gone
}

func (s *state) unmount(node uint8) {
	s.writes &^= only(node)
	s.reads &^= only(node)
}
