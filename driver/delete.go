package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver/access"
)

// Delete is the operator's verb that removes a volume with its data. It refuses unless
// the volume's options allow it and nobody holds the volume.
func (d *Driver) Delete(ctx context.Context, volume Volume) error {
	if !volume.DeleteAllowed {
		return fmt.Errorf("volume %s has not the option %s: never, so its data is kept; to delete the volume, add that to the options given here, "+
			"in the file or the JSON: the object in Kubernetes stays as it is", volume.AppInstance, optRetainPolicy)
	}
	return d.deleteIf(ctx, volume, func(ai *datera.AppInstance) error { return d.refuseAnothers(ai, volume) })
}

// Reclaim deletes a volume of the provisioner with its data, and nothing that was not
// made for its PersistentVolume. It refuses while somebody holds it.
func (d *Driver) Reclaim(ctx context.Context, volume Volume) error {
	return d.deleteIf(ctx, volume, func(ai *datera.AppInstance) error { return d.madeFor(ai, volume) })
}

// deleteIf deletes a volume that nobody holds, if the check has nothing against it. What
// is gone is no error, so it can be repeated.
func (d *Driver) deleteIf(ctx context.Context, volume Volume, check func(*datera.AppInstance) error) error {
	array, err := d.arrayFor(volume)
	if err != nil {
		return err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return err
	}
	defer unlock()
	unlockVolume, err := d.lockVolume(ctx, "app-instance-"+volume.AppInstance) // of two deletes one would bring back what the other took offline
	if err != nil {
		return err
	}
	defer unlockVolume()
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		return nil // of its groups a delete that was killed may have left some: they grant nothing, as no volume has their UUID again
	}
	if err == nil {
		err = check(ai)
	}
	if err != nil {
		return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	if _, err := d.refuseInUse(ctx, array, volume, ai.ID); err != nil {
		if ai.AdminState == datera.AdminOffline { // by an earlier delete that was killed
			err = errors.Join(err, bringOnline(ctx, array, volume, ai))
		}
		return err
	}
	groups, err := d.takeOffline(ctx, array, volume, ai)
	if err != nil {
		return err
	}
	if err := array.DeleteAppInstance(ctx, ai.ID); err != nil {
		return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	for _, group := range groups {
		if err := array.DeleteInitiatorGroup(ctx, group); err != nil {
			return fmt.Errorf("delete initiator group %s of the deleted volume %s on %s: %w", group, volume.AppInstance, array.Server(), err)
		}
	}
	return nil
}

// takeOffline makes sure that nobody comes to a volume that is about to be deleted: who logs in from here on is too late, who
// has just done so makes the array refuse, who has just been let in is seen now, and who is let in from here on sees that the
// volume is offline. It returns the groups that go with the volume.
func (d *Driver) takeOffline(ctx context.Context, array Array, volume Volume, ai *datera.AppInstance) (groups []string, err error) {
	_, err = array.SetAdminState(ctx, ai.ID, datera.AdminOffline, false)
	if err == nil || errors.Is(err, datera.ErrNotFound) {
		groups, err = d.refuseInUse(ctx, array, volume, ai.ID)
	} else {
		err = fmt.Errorf("take volume %s offline on %s, unless a node uses it: %w", volume.AppInstance, array.Server(), err)
	}
	if err != nil { // the array may have taken it offline all the same
		return nil, errors.Join(err, bringOnline(ctx, array, volume, ai))
	}
	return groups, nil
}

// bringOnline undoes takeOffline, also when the call's time is up.
func bringOnline(ctx context.Context, array Array, volume Volume, ai *datera.AppInstance) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if _, err := array.SetAdminState(ctx, ai.ID, datera.AdminOnline, false); err != nil {
		return fmt.Errorf("bring volume %s online again on %s: %w", volume.AppInstance, array.Server(), err)
	}
	return nil
}

// refuseInUse says who holds a volume, by whatever PersistentVolume or cluster, and else names the groups that go with it. In
// attach mode none a node that is dead, or has no credentials of its own, keeps its claim; without a session that keeps no
// volume from being deleted. Which mode the nodes are in, a provisioner does not know: it tells by the groups.
func (d *Driver) refuseInUse(ctx context.Context, array Array, volume Volume, volumeID string) (groups []string, err error) {
	seen, err := access.Survey(ctx, array, volumeID)
	if err != nil {
		return nil, fmt.Errorf("ask %s who holds volume %s: %w", array.Server(), volume.AppInstance, err)
	}
	direct := d.owner(volume.AppInstance)
	stale := func(h access.Holder) bool {
		return direct.Owns(h.Group) && !h.Session && (volume.Provisioned || d.Config.Attach == AttachNone)
	}
	every := func(string) bool { return true }
	holders := slices.DeleteFunc(seen.Holders(d.Config.Exempt, every), stale)
	if len(holders) == 0 {
		return seen.Groups(), nil
	}
	var iqns []string
	for _, h := range holders {
		iqns = append(iqns, h.IQN)
	}
	remedy := "delete the pods that use it first"
	if idle := func(h access.Holder) bool { return direct.Owns(h.Group) && !h.Session }; !slices.ContainsFunc(holders, func(h access.Holder) bool { return !idle(h) }) {
		remedy += fmt.Sprintf("; if attach mode none left these claims, which have no session, delete the volume where the configuration says %q: %q", "attach", AttachNone)
	}
	slices.Sort(iqns)
	return nil, fmt.Errorf("volume %s is in use by %s: %s", volume.AppInstance, strings.Join(slices.Compact(iqns), ", "), remedy)
}
