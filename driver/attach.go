package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver/access"
)

// attach makes the volume available to a node and returns its device string. It speaks to
// the array only, so it runs anywhere: beside the control plane or on the node itself.
func (d *Driver) attach(ctx context.Context, volume Volume, node string) (string, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return "", err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return "", err
	}
	defer unlock()
	return d.attachLocked(ctx, array, volume, node)
}

// attachLocked is attach by a caller that holds the volume's lock.
func (d *Driver) attachLocked(ctx context.Context, array Array, volume Volume, node string) (string, error) {
	prepared, err := d.prepare(ctx, array, volume, node)
	if err != nil {
		return "", err
	}
	if err := d.join(ctx, prepared); err != nil {
		return "", err
	}
	return prepared.attachment.String(), nil
}

// prepared is a volume that is on the array, and the claim that a node is about to make.
type prepared struct {
	array      Array
	ai         *datera.AppInstance
	volume     Volume
	attachment Attachment
	claim      access.Claim
}

func (d *Driver) prepare(ctx context.Context, array Array, volume Volume, node string) (prepared, error) {
	volume = d.named(volume)
	ai, created, err := d.provision(ctx, array, volume)
	if err != nil {
		return prepared{}, err
	}
	attachment, err := d.attachmentOf(ctx, array, ai, created, volume)
	if err != nil {
		return prepared{}, err
	}
	iqn, err := d.initiatorOf(ctx, array, node, volume)
	if err != nil {
		return prepared{}, err
	}
	return prepared{array, ai, volume, attachment, d.claim(array, volume, node, iqn)}, nil
}

// named is a volume by the name under which it is claimed. In attach mode none that is its name on the array, because an in-line
// volume's own is not unique.
func (d *Driver) named(volume Volume) Volume {
	if d.Config.Attach == AttachNone {
		volume.Name = volume.AppInstance
	}
	return volume
}

// join gives the node its claim. CHAP comes before: what follows the claim could fail, and leave it.
func (d *Driver) join(ctx context.Context, p prepared) error {
	seen, err := p.claim.Look(ctx, p.ai)
	if err != nil {
		return err
	}
	instance, err := p.ai.StorageInstance()
	if err != nil {
		return err
	}
	if err := d.ensureAuth(ctx, p.array, instance, p.volume); err != nil {
		return err
	}
	if seen, err = d.becomeWriter(ctx, p, seen); err != nil {
		return err
	}
	return p.claim.Join(ctx, p.ai, seen)
}

// initiatorOf finds the IQN of a node: the one that is registered under its name in the configured tenant. Where attach runs
// on the node itself, a node that the array does not know yet is registered on the way.
func (d *Driver) initiatorOf(ctx context.Context, array Array, node string, volume Volume) (string, error) {
	if d.Config.Attach == AttachNone {
		return d.ownInitiator(ctx, array, node)
	}
	home, err := d.homeOf(array, volume)
	if err == nil {
		err = d.checkTenant(ctx, home, volume)
	}
	if err != nil {
		return "", err
	}
	iqn, err := d.registered(ctx, home, node)
	switch {
	case err == nil:
		return iqn, d.checkOwnIQN(node, iqn)
	case !errors.Is(err, datera.ErrNotFound):
		return "", err
	case d.Config.Attach == AttachController:
		return "", fmt.Errorf("node %s is not registered on %s: no initiator has the name %q; run `iscsi register %s` on that node",
			node, home.Server(), InitiatorName(d.Config.Cluster, node), node)
	}
	return d.register(ctx, home, node)
}

// homeOf is the array in the configured tenant, where nodes are registered.
func (d *Driver) homeOf(array Array, volume Volume) (Array, error) {
	if d.tenantOf(volume) == d.homeTenant() {
		return array, nil
	}
	return d.configuredArray("")
}

// registered is the IQN that a tenant knows under a node's name. errors.Is(err, datera.ErrNotFound) if there is none.
func (d *Driver) registered(ctx context.Context, home Array, node string) (string, error) {
	initiator, err := home.InitiatorByName(ctx, InitiatorName(d.Config.Cluster, node))
	if err != nil {
		return "", fmt.Errorf("look up the initiator of node %s on %s: %w", node, home.Server(), err)
	}
	return initiator.ID, nil
}

// checkOwnIQN catches a node that got a new initiator name after it was registered.
func (d *Driver) checkOwnIQN(node, registered string) error {
	if d.Config.Attach == AttachController {
		return nil
	}
	own, err := d.Initiator.Name()
	if err != nil {
		return err
	}
	if own != registered {
		return fmt.Errorf("node %s is registered with initiator %s, but its initiator is now %s: "+
			"remove the old initiator on the array, or restore /etc/iscsi/initiatorname.iscsi", node, registered, own)
	}
	return nil
}

// ownInitiator is initiatorOf for a node that attaches for itself: it counts by its IQN.
// Two nodes with one IQN, as copied machines have, are one to the array: the second of
// them is refused.
func (d *Driver) ownInitiator(ctx context.Context, array Array, node string) (string, error) {
	iqn, err := d.Initiator.Name()
	if err != nil {
		return "", err
	}
	if err := CheckIQN(iqn); err != nil {
		return "", err
	}
	initiator, err := array.Initiator(ctx, iqn)
	if errors.Is(err, datera.ErrNotFound) {
		return d.register(ctx, array, node)
	}
	if err != nil {
		return "", fmt.Errorf("look up this node's initiator %s on %s: %w", iqn, array.Server(), err)
	}
	return iqn, IQNTaken(array.Server(), d.Config.Cluster, node, *initiator)
}

// register makes this host's initiator known to the array under the node's name.
func (d *Driver) register(ctx context.Context, array Array, node string) (string, error) {
	iqn, err := d.Initiator.Name()
	if err != nil {
		return "", err
	}
	return d.registerAs(ctx, array, node, iqn)
}

func (d *Driver) registerAs(ctx context.Context, array Array, node, iqn string) (string, error) {
	if err := CheckIQN(iqn); err != nil {
		return "", err
	}
	if _, err := array.RegisterInitiator(ctx, iqn, InitiatorName(d.Config.Cluster, node)); err != nil {
		err = ExplainRegistration(err, array.Server(), d.Config.Cluster, node)
		return "", fmt.Errorf("register initiator %s of node %s on %s: %w", iqn, node, array.Server(), err)
	}
	return iqn, nil
}

// Register is the operator's verb: it returns the IQN under which node is now known. An
// empty iqn is this host's own. A name that another initiator has is refused: two of one
// name would let nothing be attached to the node.
func (d *Driver) Register(ctx context.Context, node, iqn string) (string, error) {
	if err := checkNodeName(node); err != nil {
		return "", err
	}
	array, err := d.configuredArray("")
	if err != nil {
		return "", err
	}
	if iqn == "" {
		if iqn, err = d.Initiator.Name(); err != nil {
			return "", err
		}
	}
	if err := CheckIQN(iqn); err != nil {
		return "", err
	}
	known, err := array.InitiatorByName(ctx, InitiatorName(d.Config.Cluster, node))
	switch {
	case err == nil && known.ID != iqn:
		return "", NameTaken(array.Server(), d.Config.Cluster, node, known.ID, iqn)
	case err != nil && !errors.Is(err, datera.ErrNotFound):
		return "", fmt.Errorf("look up node %s on %s: %w", node, array.Server(), err)
	}
	return d.registerAs(ctx, array, node, iqn)
}

// detach takes a node's claim away. It knows the volume by its Kubernetes name alone, and finds everything else on the array.
func (d *Driver) detach(ctx context.Context, name, node string) error {
	unlock, err := d.lockVolume(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if d.Config.Attach == AttachKubelet {
		if err := d.releaseLeftover(ctx, name); err != nil {
			return err
		}
	}
	home, err := d.configuredArray("")
	if err != nil {
		return err
	}
	owner := d.owner(name)
	groups, err := d.search(ctx, home, owner, owner.Prefix())
	if err != nil {
		return err
	}
	revoked, err := d.revoke(ctx, home, owner, node, groups)
	if err != nil || revoked {
		return err
	}
	// A node has a claim by a group of today's or of the former name, never by both (becomeWriter). Where not even an empty group
	// was found, the array may not go by the filter: the whole list shows it.
	part := owner.Former
	if len(groups) == 0 {
		part = ""
	}
	if groups, err = d.search(ctx, home, owner, part); err != nil {
		return err
	}
	_, err = d.revoke(ctx, home, owner, node, groups)
	return err
}

// revoke removes a node's claims from the owner's groups.
func (d *Driver) revoke(ctx context.Context, home Array, owner access.Owner, node string, groups []access.Group) (revoked bool, err error) {
	if !slices.ContainsFunc(groups, func(g access.Group) bool { return len(g.Members) > 0 }) {
		return false, nil
	}
	iqn, err := d.registered(ctx, home, node)
	if err != nil && !errors.Is(err, datera.ErrNotFound) {
		return false, err
	}
	if revoked, err = access.Revoke(ctx, iqn, node, groups); err != nil || !revoked {
		return false, err
	}
	for _, group := range groups {
		if group.Name != owner.Former {
			continue
		}
		if _, err := group.In.RemoveMember(ctx, formerReaders(d.Config.Cluster, owner.PV), iqn); err != nil {
			return true, err
		}
	}
	return true, nil
}

// becomeWriter takes a node that holds a claim by the group of a former version from the list in which that version noted its
// readers, and looks again: until then others could come beside it to read. Such a claim stands for the node's own, so that a
// node never has two.
func (d *Driver) becomeWriter(ctx context.Context, p prepared, seen *access.View) (*access.View, error) {
	former := func(h access.Holder) bool {
		return h.Group == p.claim.Owner.Former && datera.SameIQN(h.IQN, p.claim.IQN)
	}
	if p.volume.ReadOnly || !slices.ContainsFunc(seen.Holders(nil, nil), former) {
		return seen, nil
	}
	readers, err := d.formerReadersOf(ctx, p.array, p.volume)
	if err != nil || !datera.ContainsIQN(readers, p.claim.IQN) {
		return seen, err
	}
	list := formerReaders(d.Config.Cluster, p.volume.Name)
	if _, err := p.array.RemoveMember(ctx, list, p.claim.IQN); err != nil {
		return nil, err
	}
	seen, err = p.claim.Look(ctx, p.ai)
	if err != nil { // it reads on, as before
		_, back := p.array.AddMember(ctx, list, p.claim.IQN)
		return nil, errors.Join(err, back)
	}
	return seen, nil
}

// formerReadersOf are the IQNs that a former version noted as readers of a volume.
func (d *Driver) formerReadersOf(ctx context.Context, array Array, volume Volume) ([]string, error) {
	list := formerReaders(d.Config.Cluster, volume.Name)
	group, err := array.InitiatorGroup(ctx, list)
	switch {
	case errors.Is(err, datera.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ask %s for the readers that a former version noted in initiator group %s: %w", array.Server(), list, err)
	}
	return group.Members, nil
}

// isAttached reports whether a node has a claim on the volume. One that may only read is not attached for a pod that writes:
// Kubernetes attaches it again then.
func (d *Driver) isAttached(ctx context.Context, volume Volume, node string) (bool, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return false, err
	}
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask %s whom volume %s lets in: %w", array.Server(), volume.AppInstance, err)
	}
	claimants, err := d.claimants(ctx, array, ai, d.named(volume))
	if err != nil || len(claimants) == 0 {
		return false, err
	}
	home, err := d.homeOf(array, volume)
	if err != nil {
		return false, err
	}
	iqn, err := d.registered(ctx, home, node)
	if errors.Is(err, datera.ErrNotFound) {
		return false, access.RefuseUnknown(ctx, array, node, claimants)
	}
	return err == nil && datera.ContainsIQN(claimants, iqn), err
}

// claimants are the IQNs that a volume's ACL policy lets in for a PersistentVolume, to write unless the volume is to be read.
func (d *Driver) claimants(ctx context.Context, array Array, ai *datera.AppInstance, volume Volume) ([]string, error) {
	var iqns []string
	for _, instance := range ai.StorageInstances {
		if instance.ACL.InitiatorGroups == nil {
			return nil, fmt.Errorf("%s does not say whom the ACL policy of %s lets in", array.Server(), instance.Path)
		}
		for _, name := range instance.ACL.Groups() {
			if !d.owner(volume.Name).Lets(name, volume.ReadOnly) {
				continue
			}
			group, err := array.InitiatorGroup(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("ask %s whom volume %s lets in: %w", array.Server(), volume.AppInstance, err)
			}
			members := group.Members
			if name == d.owner(volume.Name).Former && !volume.ReadOnly {
				readers, err := d.formerReadersOf(ctx, array, volume)
				if err != nil {
					return nil, err
				}
				members = slices.DeleteFunc(members, func(iqn string) bool { return datera.ContainsIQN(readers, iqn) })
			}
			iqns = append(iqns, members...)
		}
	}
	return iqns, nil
}
