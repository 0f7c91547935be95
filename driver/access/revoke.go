package access

import (
	"context"
	"errors"
	"fmt"

	"datera-flexvolume/datera"
)

// A Group is an initiator group, and the array in the tenant where it is.
type Group struct {
	datera.InitiatorGroup
	In Array
}

// Revoke removes a node's registered IQN, and no other one, from an owner's groups, on whichever volume, and tells whether it
// was in one. The array ends the node's sessions: this is the fence. Without an error the array showed each group without the
// IQN. An empty iqn is a node that is not registered.
func Revoke(ctx context.Context, iqn, node string, groups []Group) (revoked bool, err error) {
	for _, g := range groups {
		if iqn == "" || !datera.ContainsIQN(g.Members, iqn) {
			continue
		}
		left, err := g.In.RemoveMember(ctx, g.Name, iqn)
		if err == nil && left.Path == "" { // it was listed a moment ago: deleted since, or elsewhere
			err = fmt.Errorf("%s has no initiator group %s where it was listed; Kubernetes repeats the call", g.In.Server(), g.Name)
		}
		if err != nil {
			return false, fmt.Errorf("remove the claim of node %s: %w", node, err)
		}
		revoked = true
	}
	for i := 0; !revoked && i < len(groups); i++ {
		if err := RefuseUnknown(ctx, groups[i].In, node, groups[i].Members); err != nil {
			return false, fmt.Errorf("initiator group %s: %w", groups[i].Name, err)
		}
	}
	return revoked, nil
}

// RefuseUnknown fails if an initiator that has a claim is registered under no name: it may be the node's former IQN.
func RefuseUnknown(ctx context.Context, array Array, node string, iqns []string) error {
	for _, iqn := range iqns {
		_, err := array.Initiator(ctx, iqn)
		if errors.Is(err, datera.ErrNotFound) {
			err = fmt.Errorf("%s has a claim, but %s does not know it as an initiator, so it may be node %s: remove it there from the volume's initiator groups", iqn, array.Server(), node)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Leave removes the node's claims, also on a volume that is gone: in attach mode none the node itself detaches.
func (c Claim) Leave(ctx context.Context, volumeID string) error {
	found, err := c.Array.InitiatorGroupsContaining(ctx, volumePart(volumeID))
	if err != nil {
		return c.failed("find the claim of node "+c.Node+" on", err)
	}
	for _, group := range found {
		if !c.Owner.Owns(group.Name) || !datera.ContainsIQN(group.Members, c.IQN) {
			continue
		}
		if _, err := c.Array.RemoveMember(ctx, group.Name, c.IQN); err != nil {
			return c.failed("remove the claim of node "+c.Node+" on", err)
		}
	}
	return nil
}
