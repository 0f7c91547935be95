package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/datera"
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

// attachLocked is attach by somebody who holds the volume's lock.
func (d *Driver) attachLocked(ctx context.Context, array Array, volume Volume, node string) (string, error) {
	if device, done := d.attachedBefore(ctx, array, volume, node); done {
		return device, nil
	}
	ai, created, err := d.provision(ctx, array, volume)
	if err != nil {
		return "", err
	}
	instance, err := ai.StorageInstance()
	if err != nil {
		return "", err
	}
	attachment, err := d.attachmentOf(ctx, array, ai, created, volume)
	if err != nil {
		return "", err
	}
	iqn, err := d.initiatorOf(ctx, array, node)
	if err != nil {
		return "", err
	}
	d.hints().forget(volume.Name)
	grant := grant{driver: d, array: array, volume: volume, node: node, iqn: iqn}
	fresh, err := grant.give(ctx, instance)
	if err == nil {
		err = d.ensureAuth(ctx, array, instance, volume)
	}
	if err != nil {
		if fresh {
			if ctx.Err() != nil {
				d.outlastRequests()
			}
			err = errors.Join(err, grant.undo(ctx))
		}
		return "", err
	}
	device := attachment.String()
	d.hints().remember(hint{Server: array.Server(), Volume: volume, Node: node, IQN: iqn, Device: device})
	return device, nil
}

// attachedBefore answers a call that is repeated at once from what the first one learned,
// after one look at the array: is the grant still there?
func (d *Driver) attachedBefore(ctx context.Context, array Array, volume Volume, node string) (string, bool) {
	hint, found := d.hints().recall(volume.Name)
	if !found || hint.Server != array.Server() || hint.Node != node || !hint.sameOptions(volume) {
		return "", false
	}
	groups, err := array.InitiatorGroups(ctx, d.groupNames(volume.Name)...)
	if err != nil {
		return "", false
	}
	state := d.grantState(groups, volume.Name)
	if !slices.Equal(state.members, []string{hint.IQN}) || state.readsOnly(hint.IQN) != volume.ReadOnly {
		return "", false
	}
	return hint.Device, true
}

// initiatorOf finds the IQN of a node. Where attach runs on the node itself, a node that
// the array does not know yet is registered on the way.
func (d *Driver) initiatorOf(ctx context.Context, array Array, node string) (string, error) {
	if d.Config.Attach == AttachNone {
		return d.ownInitiator(ctx, array, node)
	}
	if iqn, known := d.hints().recallInitiator(node); known {
		return iqn, d.checkOwnIQN(node, iqn)
	}
	name := InitiatorName(d.Config.Cluster, node)
	initiator, err := array.InitiatorByName(ctx, name)
	if err == nil {
		d.hints().rememberInitiator(node, initiator.ID)
		return initiator.ID, d.checkOwnIQN(node, initiator.ID)
	}
	if !errors.Is(err, datera.ErrNotFound) {
		return "", fmt.Errorf("look up the initiator of node %s on %s: %w", node, array.Server(), err)
	}
	if d.Config.Attach == AttachController {
		return "", fmt.Errorf("node %s is not registered on %s: no initiator has the name %q; run `iscsi register %s` on that node",
			node, array.Server(), name, node)
	}
	return d.register(ctx, array, node)
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

// detach takes a node's grant away. It knows the volume by its Kubernetes name alone, and
// finds everything else on the array.
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
	array, tenant, state, err := d.findGrant(ctx, name)
	if err != nil {
		return err
	}
	// From here on the node is not attached; where that can be seen is worth remembering.
	if len(state.all()) > 0 {
		d.hints().remember(hint{Volume: Volume{Name: name, Tenant: tenant}})
	}
	iqn, err := d.memberOf(ctx, array, state, name, node)
	if err != nil || iqn == "" {
		return err
	}
	return d.revoke(ctx, array, name, iqn, state)
}

// revoke removes a member; the array then drops its sessions. This is the fence.
func (d *Driver) revoke(ctx context.Context, array Array, name, iqn string, state grantState) error {
	if slices.Contains(state.members, iqn) {
		if _, err := array.RemoveMember(ctx, d.groupName(name), iqn); err != nil {
			return fmt.Errorf("revoke the access of %s to volume %s on %s: %w", iqn, name, array.Server(), err)
		}
	}
	if state.readsOnly(iqn) {
		if _, err := array.RemoveMember(ctx, d.readersName(name), iqn); err != nil {
			return fmt.Errorf("remove %s from the readers of volume %s on %s: %w", iqn, name, array.Server(), err)
		}
	}
	return nil
}

// isAttached reports whether a node holds the grant: one read of the array when the node's IQN is known from attach. Where
// it is not, the grant may be for a volume that had the name before, which only the volume's ACL policy tells.
func (d *Driver) isAttached(ctx context.Context, volume Volume, node string) (bool, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return false, err
	}
	groups, err := array.InitiatorGroups(ctx, d.groupNames(volume.Name)...)
	if err != nil {
		return false, fmt.Errorf("ask %s who holds volume %s: %w", array.Server(), volume.Name, err)
	}
	state := d.grantState(groups, volume.Name)
	if len(state.members) == 0 {
		return false, nil
	}
	hint, found := d.hints().recall(volume.Name)
	iqn := hint.IQN
	if !found || hint.Node != node || hint.Volume.AppInstance != volume.AppInstance {
		if iqn, err = d.memberOf(ctx, array, state, volume.Name, node); err != nil || iqn == "" {
			return false, err
		}
		if referred, err := d.refersToGroup(ctx, array, volume); err != nil || !referred {
			return false, err
		}
	}
	// Who may only read is not attached for one that writes: Kubernetes attaches anew then.
	return slices.Contains(state.members, iqn) && (volume.ReadOnly || !state.readsOnly(iqn)), nil
}

// refersToGroup reports whether the volume's ACL policy refers to the group of its PersistentVolume.
func (d *Driver) refersToGroup(ctx context.Context, array Array, volume Volume) (bool, error) {
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask %s whom volume %s lets in: %w", array.Server(), volume.AppInstance, err)
	}
	instance, err := ai.StorageInstance()
	if err != nil {
		return false, fmt.Errorf("volume %s: %w", volume.AppInstance, err)
	}
	return instance.ACL.RefersTo(d.groupName(volume.Name)), nil
}

// findGrant looks for the volume's members: where the last call found them, else in the
// configured tenant, else in every other one, because detach is not told the tenant.
func (d *Driver) findGrant(ctx context.Context, name string) (Array, string, grantState, error) {
	if hint, found := d.hints().recall(name); found {
		array, state, _, err := d.grantIn(ctx, hint.Volume.Tenant, name)
		return array, hint.Volume.Tenant, state, err
	}
	array, state, held, err := d.grantIn(ctx, "", name)
	if held || err != nil {
		return array, "", state, err
	}
	tenants, err := array.Tenants(ctx)
	if err != nil {
		return nil, "", grantState{}, fmt.Errorf("list the tenants of %s: %w", array.Server(), err)
	}
	for _, tenant := range tenants {
		if tenant == d.Config.Tenant {
			continue
		}
		other, state, held, err := d.grantIn(ctx, tenant, name)
		if held || err != nil {
			return other, tenant, state, err
		}
	}
	return array, "", grantState{}, nil
}

// grantIn looks in one tenant; "" is the configured one.
func (d *Driver) grantIn(ctx context.Context, tenant, name string) (Array, grantState, bool, error) {
	array, err := d.configuredArray(tenant)
	if err != nil {
		return nil, grantState{}, false, err
	}
	state, held, err := d.lookForGrant(ctx, array, name)
	return array, state, held, err
}

// lookForGrant tells who holds the volume in the array's tenant, and whether anybody does.
func (d *Driver) lookForGrant(ctx context.Context, array Array, name string) (grantState, bool, error) {
	groups, err := array.InitiatorGroups(ctx, d.groupNames(name)...)
	if err != nil {
		return grantState{}, false, fmt.Errorf("ask %s who holds volume %s: %w", array.Server(), name, err)
	}
	state := d.grantState(groups, name)
	return state, len(state.all()) > 0, nil
}

// memberOf finds the node among the members by the names of their initiators; "" when it
// is not one of them. The members are asked one by one: there is one, seldom more.
func (d *Driver) memberOf(ctx context.Context, array Array, state grantState, name, node string) (string, error) {
	wanted := InitiatorName(d.Config.Cluster, node)
	var unknown []string
	for _, iqn := range state.all() {
		initiator, err := array.Initiator(ctx, iqn)
		if errors.Is(err, datera.ErrNotFound) {
			unknown = append(unknown, iqn)
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look up initiator %s on %s: %w", iqn, array.Server(), err)
		}
		if initiator.Name == wanted {
			return iqn, nil
		}
	}
	if len(unknown) > 0 {
		groups := d.groupName(name)
		if slices.ContainsFunc(unknown, state.readsOnly) {
			groups += " and " + d.readersName(name)
		}
		return "", fmt.Errorf("%s may reach volume %s, but %s does not know it as an initiator any more, so it may be node %s: remove it there from initiator group %s",
			strings.Join(unknown, ", "), name, array.Server(), node, groups)
	}
	return "", nil
}
