package access

import (
	"context"
	"fmt"

	"datera-flexvolume/datera"
)

// against divides those who keep the claim out: who stands, and who is stale, with a claim and no session, where the claim's
// node may evict it. An array that does not show sessions has no stale claims.
func (c Claim) against(seen *View) (standing, stale []Holder) {
	for _, h := range seen.Holders(c.Exempt, c.Owner.Owns) {
		switch {
		case !c.conflicts(h):
		case c.Evicts && c.Owner.Owns(h.Group) && !h.Session && seen.target.ActiveInitiators != nil:
			stale = append(stale, h)
		default:
			standing = append(standing, h)
		}
	}
	return standing, stale
}

// conflicts is the one rule of who may share a volume: readers with readers. The node itself conflicts under another name:
// each mount would keep the other from being removed.
func (c Claim) conflicts(h Holder) bool {
	if datera.SameIQN(h.IQN, c.IQN) {
		return h.Claim && !c.Owner.Owns(h.Group)
	}
	return !c.ReadOnly || Grants(h.Group) != "ro"
}

// refuse says who keeps the claim out, and what to do; nil if none does.
func (c Claim) refuse(ctx context.Context, holders []Holder) error {
	if len(holders) == 0 {
		return nil
	}
	h, access := holders[0], "read-write"
	if c.ReadOnly {
		access = "read-only"
	}
	by := "initiator " + h.IQN
	if initiator, err := c.Array.Initiator(ctx, h.IQN); err == nil && initiator.Name != "" {
		by = fmt.Sprintf("node %s (%s)", c.NodeOf(initiator.Name), h.IQN)
	}
	return fmt.Errorf("volume %s cannot be attached %s to node %s: it is in use by %s; %s", c.Volume, access, c.Node, by, c.remedy(h))
}

func (c Claim) remedy(h Holder) string {
	switch {
	case !h.Claim:
		return "it has a session without a claim: stop what uses the volume there, or log it out"
	case h.Group == "":
		return "the volume's ACL policy lists it by itself: remove it there, or name it in exempt in the configuration"
	case !c.Owner.Owns(h.Group):
		return fmt.Sprintf("it has the volume by another PersistentVolume or cluster (initiator group %s): delete the pods that use that one, and wait until it is detached; "+
			"if the group is other software's, remove it from the volume's ACL policy, or name it in exempt in the configuration", h.Group)
	case c.Evicts:
		return "delete the last pod there; from a dead node the volume is taken when the array has ended its session"
	}
	return "delete the pod there and wait until the volume is detached (if the node is dead, taint it with node.kubernetes.io/out-of-service)"
}
