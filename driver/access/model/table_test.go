package model

// questions are all scenarios that the model is asked. The page deploy/docs/access.md names them.
//
// A row with a switch of the protocol that wants a violation is run as the protocol is written, too, and must hold then:
// so it is the rule that protects. A row without a switch that wants a violation is a limit.
var questions = []scenario{
	// As written, attach mode controller.
	{name: "two nodes, one PersistentVolume", callers: "0A 0B", world: world{fence: true, repeat: true}, checks: all},
	{name: "two nodes by two PersistentVolumes", callers: "0A 1B", world: world{fence: true, repeat: true}, checks: all},
	{name: "a writer and a reader", callers: "0A 0Br", world: world{fence: true, repeat: true}, checks: all},
	{name: "two readers", callers: "0Ar 0Br", world: world{fence: true, repeat: true}, checks: all},
	{name: "a writer and a reader by two PersistentVolumes", callers: "0A 1Br", world: world{fence: true}, checks: all},
	{name: "one node by two PersistentVolumes", callers: "0A 1A", world: world{fence: true}, checks: all},
	{name: "three nodes", callers: "0A 0B 0C", world: world{fence: true, filter: true}, checks: all, large: true},
	{name: "a writer and two readers", callers: "0A 0Br 0Cr", world: world{filter: true, kills: oneKill}, large: true},
	{name: "sessions that are shown late", callers: "0A 1B", world: world{fence: true, filter: true, lag: anyTimeBehind}, checks: all},
	{name: "sessions that end late", callers: "0A 1B", world: world{fence: true, filter: true, lazyEnd: true, repeat: true}, checks: all},
	{name: "a delete beside two nodes", callers: "0A 0B delete", world: world{fence: true, filter: true}, checks: all},
	{name: "a delete beside two nodes, any order of reading", callers: "0A 0B delete", world: world{fence: true, repeat: true}, checks: all, large: true},
	{name: "a delete beside two PersistentVolumes", callers: "0A 1B delete", world: world{fence: true, filter: true}, large: true},
	{name: "a volume made again under its name", callers: "0A delete", world: world{fence: true, repeat: true, remake: true}, checks: all},
	{name: "a volume made again beside two nodes", callers: "0A 0B delete", world: world{fence: true, repeat: true, remake: true, filter: true}, checks: all, large: true},
	{name: "a claim that was given up may be added later", callers: "0A 0B", world: world{lates: 1, kills: oneKill}, checks: oneWriter},

	// As written, attach mode none.
	{name: "none: two nodes", callers: "0A 0B", world: world{modeNone: true, nodesDie: true}, checks: all},
	{name: "none: two PersistentVolumes", callers: "0A 1B", world: world{modeNone: true, nodesDie: true}, checks: all},
	{name: "none: a writer and two readers", callers: "0A 0Br 0Cr", world: world{modeNone: true, nodesDie: true, lazyEnd: true, filter: true, kills: noKills}, large: true},
	{name: "none: a writer and a reader", callers: "0A 0Br", world: world{modeNone: true, nodesDie: true}, checks: all},
	{name: "none: two readers", callers: "0Ar 0Br", world: world{modeNone: true, nodesDie: true}, checks: all},
	{name: "none: three nodes", callers: "0A 0B 0C", world: world{modeNone: true, nodesDie: true, kills: oneKill, filter: true}, large: true},
	{name: "none: lines that break", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, breaks: 2}, checks: safe &^ keepsClaim},
	{name: "none: lines that break, a writer and a reader", callers: "0A 0Br", world: world{modeNone: true, nodesDie: true, breaks: 2}, checks: safe &^ keepsClaim, large: true},
	{name: "none: sessions that end late", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, lazyEnd: true}, checks: all},
	{name: "none: sessions that end late, lines that break", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, lazyEnd: true, breaks: 1}, checks: safe &^ keepsClaim},
	{name: "none: sessions that are shown a step late", callers: "0A 0B", world: world{modeNone: true, lag: oneStepBehind}},
	{name: "none: sessions that are shown late, lines that break", callers: "0A 0B", world: world{modeNone: true, lag: anyTimeBehind, breaks: 1}, checks: safe &^ keepsClaim, large: true},
	{name: "none: a delete beside two nodes", callers: "0A 0B delete", world: world{modeNone: true, filter: true, kills: noKills}},
	{name: "none: a delete beside two nodes that die", callers: "0A 0B delete", world: world{modeNone: true, nodesDie: true}, large: true},
	{name: "none: a volume made again beside two nodes", callers: "0A 0B delete", world: world{modeNone: true, remake: true, filter: true}, large: true},
	{name: "none: a claim that was given up may be added later", callers: "0A 0B", world: world{modeNone: true, lates: 1, kills: oneKill}, checks: oneWriter},

	// Rule 1.
	{name: "groups by name", callers: "0A 0B delete", world: world{remake: true, filter: true, kills: noKills},
		protocol: protocol{groupsByName: true, secondLookByName: true}, wants: keepsVolume},
	{name: "groups by name, the own group read again", callers: "0A 0B delete", world: world{remake: true, filter: true, kills: noKills},
		protocol: protocol{groupsByName: true, secondLookByName: true, rereadOwn: true}, wants: keepsVolume},
	{name: "groups by name, the second look by UUID", callers: "0A 0B delete", world: world{remake: true, filter: true, kills: noKills},
		protocol: protocol{groupsByName: true}, wants: keepsClaim},
	{name: "groups by name, and deleted while referred to", callers: "0A 0B delete", world: world{remake: true, filter: true, kills: noKills, deletesReferred: true},
		protocol: protocol{groupsByName: true, rereadOwn: true}, wants: keepsClaim},
	{name: "a repeated delete searches groups", callers: "0A delete", world: world{fence: true, remake: true, deletesReferred: true},
		protocol: protocol{deletesSearched: true}, wants: keepsClaim},
	{name: "a repeated delete searches groups, then sees that the volume is gone", callers: "0A delete", world: world{fence: true, remake: true, deletesReferred: true},
		protocol: protocol{deletesSearched: true, deletesOld: true}},

	// Rule 2.
	{name: "unreferred groups left out", callers: "0A 0B", world: world{fence: true, repeat: true}, protocol: protocol{noUnreferred: true}, checks: all},
	{name: "members read last", callers: "0A 0B", world: world{fence: true, lazyEnd: true}, protocol: protocol{membersLast: true}, wants: oneWriter},
	{name: "members read last, two PersistentVolumes", callers: "0A 1B", world: world{fence: true, lazyEnd: true}, protocol: protocol{membersLast: true}, wants: oneWriter},
	{name: "a reference that was seen last", callers: "0A 0Br 0Cr", world: world{filter: true, kills: oneKill}, protocol: protocol{referenceSeenLast: true}, wants: oneWriter, large: true},
	{name: "none: app instance read last", callers: "0A 0B", world: world{modeNone: true, nodesDie: true}, protocol: protocol{appLastAfterLogin: true}, wants: keepsClaim},

	// Rule 3.
	{name: "no first look", callers: "0A 0B", world: world{fence: true, repeat: true}, protocol: protocol{noFirstLook: true}, wants: keepsClaim},
	{name: "ask first", callers: "0A 1B", world: world{fence: true, stale: true, filter: true}, protocol: protocol{askFirst: true}, checks: all},
	{name: "ask first, a writer and a reader", callers: "0A 0Br", world: world{fence: true, stale: true}, protocol: protocol{askFirst: true}, checks: all, large: true},
	{name: "ask first, sessions that end late", callers: "0A 0B", world: world{fence: true, stale: true, lazyEnd: true, filter: true}, protocol: protocol{askFirst: true}},

	// Rule 4.
	{name: "no second look", callers: "0A 1B", world: world{fence: true}, protocol: protocol{noSecondLook: true}, wants: oneWriter},
	{name: "no second look, a writer and a reader", callers: "0A 0Br", world: world{fence: true}, protocol: protocol{noSecondLook: true}, wants: oneWriter},
	{name: "no second look, one group", callers: "0A 0B", world: world{fence: true}, protocol: protocol{noSecondLook: true}},
	{name: "offline ignored", callers: "0A delete", world: world{fence: true}, protocol: protocol{stateIgnored: true}, wants: keepsVolume},
	{name: "refer, then add", callers: "0A 1B", world: world{fence: true}, protocol: protocol{referFirst: true}, checks: all},
	{name: "attach brings the volume online", callers: "0A 0B delete", world: world{filter: true, kills: noKills}, protocol: protocol{bringsOnline: true}},
	{name: "attach brings the volume online, and the array deletes it so", callers: "0A delete", world: world{deletesOnline: true},
		protocol: protocol{bringsOnline: true}, wants: keepsVolume},

	// Rule 5.
	{name: "nothing withdrawn", callers: "0A 0B", protocol: protocol{neverWithdrawn: true}, wants: somebodyIn},
	{name: "withdrawn without a note", callers: "0A 0B", world: world{repeat: true}, protocol: protocol{withdrawnUnnoted: true}, wants: keepsClaim},
	{name: "the note erased after success was told", callers: "0A 0B", world: world{repeat: true}, protocol: protocol{eraseAfterTelling: true}, wants: keepsClaim},
	{name: "the note erased before the claim is taken back", callers: "0A 0B", protocol: protocol{eraseBeforeRemoval: true}, wants: somebodyIn},
	{name: "the note erased by a refused call", callers: "0A 0B delete", world: world{fence: true, filter: true}, protocol: protocol{eraseOnRefusal: true}, wants: somebodyIn},

	// Rule 6.
	{name: "two calls at once, locked", callers: "0A 0A 0B", world: world{repeat: true, filter: true}, checks: all},
	{name: "two calls at once", callers: "0A 0A 0B", world: world{filter: true}, protocol: protocol{noLock: true}, wants: keepsClaim},
	{name: "two deletes at once", callers: "0A delete delete", world: world{fence: true, kills: noKills}, protocol: protocol{noLock: true}, wants: keepsVolume},

	// Rule 7.
	{name: "none: a refused call leaves its session", callers: "0A 0B", world: world{modeNone: true}, protocol: protocol{noCleanUp: true}, wants: somebodyIn},

	// Rule 8.
	{name: "none: no look after the login", callers: "0A 0B", world: world{modeNone: true}, protocol: protocol{noLookAfterLogin: true}, wants: oneWriter},
	{name: "none: the own claim is not checked", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, lazyEnd: true}, protocol: protocol{ownClaimIgnored: true}, wants: keepsClaim},
	{name: "none: evict, then log in", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, breaks: 2}, protocol: protocol{evictBeforeLogin: true}, wants: oneWriter},
	{name: "none: no look after the eviction", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, lazyEnd: true, breaks: 1}, protocol: protocol{noLookAfterEviction: true}, wants: oneWriter},
	{name: "none: scan before the last look", callers: "0A 0B", world: world{modeNone: true, nodesDie: true, lazyEnd: true, breaks: 1}, protocol: protocol{scanBeforeLastLook: true}, wants: freshCache},
	{name: "none: evicted unseen", callers: "0A 0B", world: world{modeNone: true, lag: neverShown}, protocol: protocol{evictsBlindly: true}, wants: keepsClaim},

	// Limits: rule 9, and what no rule closes.
	{name: "a fenced node logs in for a moment", callers: "0A 0B", world: world{fence: true, stale: true}, wants: oneWriter},
	{name: "the leader moves away and back", callers: "0A 0A 0B", world: world{hosts: true, filter: true}, wants: keepsClaim},
	{name: "the leader moves away and back, notes on the array", callers: "0A 0A 0B", world: world{hosts: true, filter: true}, protocol: protocol{notesOnArray: true}, checks: all},
	{name: "a given-up addition lets a fenced node in", callers: "0A 0B", world: world{fence: true, lates: 1, kills: oneKill}, wants: oneWriter},
	{name: "a given-up removal cuts off who was told", callers: "0A 0B", world: world{lates: 1}, wants: keepsClaim},
	{name: "a given-up addition stays", callers: "0A 0B", world: world{lates: 1}, wants: nothingLeft},
	{name: "a given-up addition blocks another", callers: "0A 0B", world: world{lates: 1}, wants: somebodyIn},
	{name: "a given-up removal lets a delete through", callers: "0A delete", world: world{lates: 1}, wants: keepsVolume},
	{name: "sessions that end late and are shown late", callers: "0A 1B", world: world{fence: true, lag: anyTimeBehind, lazyEnd: true}, wants: oneWriter},
	{name: "none: a line breaks, and the holder is evicted", callers: "0A 0B", world: world{modeNone: true, breaks: 1}, wants: keepsClaim},
	{name: "none: a line breaks, and the volume is deleted", callers: "0A delete", world: world{modeNone: true, breaks: 1}, wants: keepsVolume},
	{name: "none: sessions that are shown late", callers: "0A 0B", world: world{modeNone: true, lag: anyTimeBehind}, wants: keepsClaim},
	{name: "none: sessions that end late and are shown late", callers: "0A 0B", world: world{modeNone: true, lag: anyTimeBehind, breaks: 1, lazyEnd: true}, wants: oneWriter},
	{name: "none: a given-up addition after a broken line", callers: "0A 0B", world: world{modeNone: true, lates: 1, kills: oneKill, breaks: 1}, wants: oneWriter},
	{name: "none: a given-up eviction", callers: "0A 0B", world: world{modeNone: true, lates: 1, kills: oneKill}, wants: keepsClaim},
	{name: "none: a given-up removal lets a delete through", callers: "0A delete", world: world{modeNone: true, lates: 1}, wants: keepsVolume},

	// An orphan collector, which is not part of the driver.
	{name: "a collector of orphans", callers: "0A collect:0A", world: world{pods: true, promptStatus: true}, protocol: protocol{collectorUnlocked: true}, wants: keepsClaim},
	{name: "a collector of orphans that holds the lock of attach", callers: "0A collect:0A", world: world{pods: true}, wants: keepsClaim},
	{name: "a collector of orphans that holds the lock, status up to date", callers: "0A 0B collect:0A", world: world{pods: true, promptStatus: true, fence: true, repeat: true, filter: true}},
	{name: "a collector of orphans never makes two writers", callers: "0A 0B collect:0A", world: world{pods: true, fence: true, filter: true, kills: noKills}, protocol: protocol{collectorUnlocked: true}, checks: oneWriter | keepsVolume},

	// The upgrade from the former version.
	{name: "the former version beside today's", callers: "0Af 0B", world: world{fence: true}},
	{name: "the former version beside today's, two PersistentVolumes", callers: "0Af 1B", world: world{fence: true}},
	{name: "the former version beside a reader of today's", callers: "0Af 0Br", world: world{fence: true}},
	{name: "the former version beside today's, and a delete", callers: "0Af 0B delete", world: world{fence: true, filter: true}, large: true},
	{name: "an upgrade at any moment", callers: "0A 0B", world: world{fence: true, upgrade: true, filter: true}},
	{name: "an upgrade, own former claims are another's", callers: "0A", world: world{fence: true, upgrade: true}, protocol: protocol{formerForeign: true}, wants: somebodyIn},
	{name: "an upgrade and back between two calls", callers: "0A 0B", world: world{fence: true, upgrade: true, filter: true, goBack: true, drains: true}, checks: oneWriter | keepsClaim},
	{name: "an upgrade and back in the middle of a call", callers: "0A 0B", world: world{fence: true, upgrade: true, goBack: true, filter: true, kills: oneKill}, wants: oneWriter},
	{name: "an upgrade and back, the own group read again", callers: "0A 0B", world: world{fence: true, upgrade: true, goBack: true, filter: true, kills: oneKill}, protocol: protocol{rereadOwn: true}, checks: oneWriter | keepsClaim},
	{name: "a claim of today's version, detached by the former", callers: "0A", world: world{fence: true, upgrade: true, goBack: true}, wants: nothingLeft},
	{name: "the former version, sessions that end late", callers: "0Af 0B", world: world{fence: true, lazyEnd: true}, wants: oneWriter},
}
