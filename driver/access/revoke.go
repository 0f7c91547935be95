package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"datera-flexvolume/datera"
)

// A Group is an initiator group, and the array in the tenant where it is.
type Group struct {
	datera.InitiatorGroup
	Array
}

// Revoke removes a node's registered IQN, and no other one, from an owner's groups, on whichever volume. The array ends the
// node's sessions: this is the fence. Success means that the array showed each group without the IQN.
func Revoke(ctx context.Context, registered *datera.Initiator, node string, groups []Group) error {
	holds := func(g Group) bool { return registered != nil && datera.ContainsIQN(g.Members, registered.ID) }
	if !slices.ContainsFunc(groups, holds) {
		return refuseUnknown(ctx, node, groups)
	}
	for _, g := range groups {
		if !holds(g) {
			continue
		}
		if _, err := g.RemoveMember(ctx, g.Name, registered.ID); err != nil {
			return fmt.Errorf("remove the claim of node %s: %w", node, err)
		}
	}
	return nil
}

// refuseUnknown fails if a member is registered under no name: it may be the node's former IQN, and then it may still log in.
func refuseUnknown(ctx context.Context, node string, groups []Group) error {
	for _, g := range groups {
		for _, iqn := range g.Members {
			if _, err := g.Initiator(ctx, iqn); errors.Is(err, datera.ErrNotFound) {
				return fmt.Errorf("%s has a claim in initiator group %s, but %s does not know it as an initiator, so it may be node %s: remove it there from the group",
					iqn, g.InitiatorGroup.Name, g.Server(), node)
			} else if err != nil {
				return fmt.Errorf("look up initiator %s on %s: %w", iqn, g.Server(), err)
			}
		}
	}
	return nil
}

// Leave removes the node's claims to read and to write: in attach mode none the node itself detaches.
func (c Claim) Leave(ctx context.Context, volumeID string) error {
	for _, group := range []string{c.Owner.group(volumeID, false), c.Owner.group(volumeID, true), c.Owner.Former} {
		if _, err := c.Array.RemoveMember(ctx, group, c.IQN); err != nil {
			return c.failed("remove the claim of node "+c.Node+" on", err)
		}
	}
	return nil
}

// Claimants are the IQNs that the policy lets in by the owner's groups: for who writes, those that may write.
func (o Owner) Claimants(ctx context.Context, array Array, app *datera.AppInstance, readOnly bool) ([]string, error) {
	seen, err := newView(app, nil)
	if err != nil {
		return nil, err
	}
	var iqns []string
	for _, name := range seen.target.ACL.Groups() {
		if !o.Owns(name) || reading.MatchString(name) && !readOnly {
			continue
		}
		group, err := array.InitiatorGroup(ctx, name)
		if err != nil {
			return nil, err
		}
		iqns = append(iqns, group.Members...)
	}
	return iqns, nil
}
