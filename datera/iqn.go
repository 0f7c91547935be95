package datera

import (
	"slices"
	"strings"
)

// SameIQN compares initiators as an array may: an iSCSI name means the same in capitals (RFC 3722).
func SameIQN(a, b string) bool { return strings.EqualFold(a, b) }

// ContainsIQN reports whether an initiator is among others.
func ContainsIQN(all []string, iqn string) bool {
	return slices.ContainsFunc(all, func(other string) bool { return SameIQN(other, iqn) })
}

// IQNs are the initiators that the ACL lists by themselves.
func (a ACL) IQNs() []string { return lastElements(a.Initiators) }

// Groups are the names of the groups whose members the ACL lets in.
func (a ACL) Groups() []string { return lastElements(a.InitiatorGroups) }

// isIQN tells the name of an initiator or target from other text.
func isIQN(name string) bool {
	kind, rest, _ := strings.Cut(name, ".")
	return rest != "" && slices.ContainsFunc([]string{"iqn", "eui", "naa"}, func(known string) bool { return strings.EqualFold(kind, known) })
}
