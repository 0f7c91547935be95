package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/datera"
)

// Delete is the operator's verb that removes a volume with its data. It refuses unless
// the volume's options allow it and nobody holds the volume.
func (d *Driver) Delete(ctx context.Context, volume Volume) error {
	if !volume.DeleteAllowed {
		return fmt.Errorf("volume %s has not the option %s: never, so its data is kept; set it to delete the volume", volume.AppInstance, optRetainPolicy)
	}
	return d.deleteIf(ctx, volume, func(*datera.AppInstance) error { return nil })
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
	d.hints().forget(volume.Name)
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if err == nil {
		err = check(ai)
	}
	if err != nil && !errors.Is(err, datera.ErrNotFound) {
		return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	if err := d.refuseInUse(ctx, array, volume, ai); err != nil {
		return err
	}
	if ai != nil {
		if err := array.DeleteAppInstance(ctx, ai.ID); err != nil {
			return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
		}
	}
	for _, group := range d.ownGroups(volume) {
		if err := array.DeleteInitiatorGroup(ctx, group); err != nil {
			return fmt.Errorf("delete initiator group %s on %s: %w", group, array.Server(), err)
		}
	}
	return nil
}

// ownGroups are the groups that the volume has, or has had: in attach mode none they go
// by its name on the array.
func (d *Driver) ownGroups(volume Volume) []string {
	names := d.groupNames(volume.Name)
	if volume.AppInstance != volume.Name {
		names = append(names, d.groupNames(volume.AppInstance)...)
	}
	return names
}

// refuseInUse says who holds the volume, by whatever PersistentVolume or cluster; ai is nil
// when it is not there.
func (d *Driver) refuseInUse(ctx context.Context, array Array, volume Volume, ai *datera.AppInstance) error {
	names, holders := d.ownGroups(volume), []string(nil)
	if ai != nil {
		if instance, err := ai.StorageInstance(); err == nil {
			names = append(names, otherGroups(instance, names)...)
			holders = instance.ActiveInitiators
		}
	}
	groups, err := array.InitiatorGroups(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask %s who holds volume %s: %w", array.Server(), volume.AppInstance, err)
	}
	for _, name := range names {
		if group := groups[name]; group != nil {
			holders = append(holders, group.Members...)
		}
	}
	if len(holders) > 0 {
		slices.Sort(holders)
		return fmt.Errorf("volume %s is in use by %s: delete the pods that use it first", volume.AppInstance, strings.Join(slices.Compact(holders), ", "))
	}
	return nil
}
