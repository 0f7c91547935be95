package driver

import (
	"slices"

	"datera-flexvolume/datera"
)

// grantState is who holds a volume, as the array says.
type grantState struct {
	exists  bool     // the volume's group is there
	fresh   bool     // it was made just now, with the node as its member
	members []string // IQNs that may log in
	readers []string // IQNs that attached read-only
	others  []string // IQNs that may log in by the group of another PersistentVolume or cluster
	foreign []string // those groups
	vacant  []string // such groups that have no members
}

func (d *Driver) grantState(groups map[string]*datera.InitiatorGroup, name string) grantState {
	var state grantState
	for group, found := range groups {
		switch {
		case found == nil:
		case group == d.groupName(name):
			state.exists, state.members = true, found.Members
		case group == d.readersName(name):
			state.readers = found.Members
		case len(found.Members) == 0:
			state.vacant = append(state.vacant, group)
		default:
			state.others, state.foreign = append(state.others, found.Members...), append(state.foreign, group)
		}
	}
	return state
}

func (s grantState) readsOnly(iqn string) bool { return slices.Contains(s.readers, iqn) }

// all is members and readers; a crash may have left a reader that is no member.
func (s grantState) all() []string { return union(s.members, s.readers) }

// rivals are the members with which iqn cannot share the volume: everybody else, but
// readers share with readers.
func (s grantState) rivals(iqn string, readOnly bool) []string {
	var rivals []string
	for _, member := range s.members {
		if member != iqn && !(readOnly && s.readsOnly(member)) {
			rivals = append(rivals, member)
		}
	}
	return rivals
}

// outsiders are those who reach the volume without being members: by the group of another
// PersistentVolume, or by a session that goes on after its grant was taken away.
func (s grantState) outsiders(iqn string, active []string) []string {
	var outsiders []string
	for _, other := range append(slices.Clone(s.others), active...) {
		if other != iqn && !slices.Contains(s.members, other) && !slices.Contains(outsiders, other) {
			outsiders = append(outsiders, other)
		}
	}
	return outsiders
}

// union is a and what b has besides.
func union(a, b []string) []string {
	return append(slices.Clone(a), without(b, a)...)
}

// without is what a has and b has not.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(element string) bool { return slices.Contains(b, element) })
}
