package model

// A protocol is how callers behave. The zero value is the protocol as it is written; each switch takes a part of a rule out,
// or puts another in its place.
type protocol struct {
	// Rule 1: a group belongs to one volume, by its UUID.
	groupsByName    bool // a group belongs to a PersistentVolume, whichever volume that leads to
	deletesSearched bool // a delete that finds no volume deletes the groups that carry the PersistentVolume's name
	deletesOld      bool // ... only those that were there before it saw that the volume is gone

	// Rule 2: what a look reads, and in which order.
	noUnreferred      bool // the first look leaves out own groups that the policy does not refer to
	membersLast       bool // before the login, a look ends with the members, not with the app instance
	referenceSeenLast bool // a repeated attach trusts a reference that it saw only after it had read the members
	appLastAfterLogin bool // after the login, a look ends with the app instance, not with the members

	// Rule 3: where anybody conflicts, nothing is added.
	noFirstLook bool
	askFirst    bool // the claim is published first in a group that grants nothing

	// Rule 4: the second look.
	noSecondLook     bool
	secondLookByName bool // it may find another volume of the same name
	stateIgnored     bool // it ignores whether the volume is online and lets the node in
	rereadOwn        bool // it reads the own group, too
	referFirst       bool // the policy refers to the group before the claim is added
	bringsOnline     bool // an attach brings a volume online that it finds offline

	// Rule 5: only a claim that a note says nobody was told of is withdrawn.
	neverWithdrawn     bool
	withdrawnUnnoted   bool // a claim without a session is withdrawn
	eraseAfterTelling  bool
	eraseBeforeRemoval bool
	notesOnArray       bool // the note is kept where every host finds it
	eraseOnRefusal     bool // a call that is refused erases the note, though its claim may stand

	// Rule 6: one call at a time for a PersistentVolume and node, and one delete for a volume.
	noLock bool

	// Rule 7: in mode none a call that fails logs out and removes its claim.
	noCleanUp bool

	// Rule 8: mode none logs in, looks, evicts, looks again, and scans.
	evictBeforeLogin    bool
	noLookAfterLogin    bool
	ownClaimIgnored     bool // the looks after the login do not check the own claim
	evictsBlindly       bool // it evicts though the array shows no sessions at all
	noLookAfterEviction bool
	scanBeforeLastLook  bool

	// Questions beside the rules.
	collectorUnlocked bool // the orphan collector does not hold the lock of attach
	formerForeign     bool // an own claim by the former version counts as another's
}

// A world is what callers, nodes and the array may do.
type world struct {
	modeNone bool // attach mode none; otherwise controller
	fence    bool // detach may be called while the node has the volume mounted
	stale    bool // attach may be called for a node that has such a mount still
	repeat   bool // attach may be repeated after success was told
	remake   bool // an attach makes the volume again, once, after it was deleted
	nodesDie bool
	breaks   uint8 // lines that break
	lates    uint8 // requests of killed calls that are carried out later
	kills    kills
	lag      lag
	lazyEnd  bool // sessions end some time after their claim
	filter   bool // the members of all groups are read by one request
	hosts    bool // two callers for one PersistentVolume and node live on two hosts

	deletesOnline   bool // the array deletes a volume that is online
	deletesReferred bool // the array deletes a group that a policy refers to

	pods         bool // attach is called while a pod uses the volume, detach when none does
	promptStatus bool // the node's status says at once what was told
	upgrade      bool // the former version is replaced, at any moment
	goBack       bool // ... and put back
	drains       bool // versions change while no call is in progress
}

// kills is how many calls may be killed.
type kills uint8

const (
	anyKills kills = iota
	oneKill
	noKills
)

// lag is how far active_initiators is behind the sessions.
type lag uint8

const (
	exact lag = iota
	oneStepBehind
	anyTimeBehind
	neverShown
)
