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
	d.hints().forget(volume.Name)
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if err == nil {
		err = check(ai)
	}
	if err != nil && !errors.Is(err, datera.ErrNotFound) {
		return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	groups, err := d.refuseInUse(ctx, array, volume, ai)
	switch {
	case err != nil && ai != nil && ai.AdminState == datera.AdminOffline: // by an earlier delete that was killed
		return errors.Join(err, bringOnline(ctx, array, volume, ai))
	case err != nil:
		return err
	}
	if ai != nil {
		if groups, err = d.takeOffline(ctx, array, volume, ai); err != nil {
			return err
		}
		if err := array.DeleteAppInstance(ctx, ai.ID); err != nil {
			return fmt.Errorf("delete volume %s on %s: %w", volume.AppInstance, array.Server(), err)
		}
	}
	for _, group := range slices.Backward(groups) { // the readers' first: who is noted there without the other would write unseen
		if err := d.deleteGroup(ctx, array, volume, group); err != nil {
			return err
		}
	}
	return nil
}

// takeOffline makes sure that nobody comes to a volume that is about to be deleted: who logs in from here on is too late,
// who has just done so makes the array refuse, who has just been let in is seen now, and who is let in from here on sees that
// the volume is offline (lookAgain). It returns the groups that go with the volume.
func (d *Driver) takeOffline(ctx context.Context, array Array, volume Volume, ai *datera.AppInstance) ([]string, error) {
	if _, err := array.SetAdminState(ctx, ai.ID, datera.AdminOffline, false); err != nil && !errors.Is(err, datera.ErrNotFound) {
		err = fmt.Errorf("take volume %s offline on %s, unless a node uses it: %w", volume.AppInstance, array.Server(), err)
		return nil, errors.Join(err, bringOnline(ctx, array, volume, ai)) // the array may have done it all the same
	}
	offline, err := array.AppInstance(ctx, ai.ID)
	if errors.Is(err, datera.ErrNotFound) {
		return d.refuseInUse(ctx, array, volume, nil)
	}
	var groups []string
	if err == nil {
		groups, err = d.refuseInUse(ctx, array, volume, offline)
	}
	if err != nil {
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

// deleteGroup deletes a group, unless another volume, of a PersistentVolume of the same name, has it: the array refuses then.
func (d *Driver) deleteGroup(ctx context.Context, array Array, volume Volume, group string) error {
	err := array.DeleteInitiatorGroup(ctx, group)
	if err == nil {
		return nil
	}
	if elsewhere, lookErr := d.leadsElsewhere(ctx, array, group, volume.AppInstance); lookErr == nil && elsewhere {
		return nil
	}
	return fmt.Errorf("delete initiator group %s on %s: %w", group, array.Server(), err)
}

// directGroups are the groups that attach mode none has for a volume, by its name on the
// array. Which mode the nodes are in, a provisioner does not know.
func (d *Driver) directGroups(volume Volume) []string {
	if volume.Provisioned || d.Config.Attach == AttachNone {
		return d.groupNames(volume.AppInstance)
	}
	return nil
}

// refuseInUse says who holds the volume, by whatever PersistentVolume or cluster; ai is nil
// when it is not there. Otherwise it returns the groups that go with the volume. In attach mode
// none a node that is dead, or has no credentials of its own, keeps its grant, which without a
// session keeps nobody out.
func (d *Driver) refuseInUse(ctx context.Context, array Array, volume Volume, ai *datera.AppInstance) (own []string, err error) {
	var active, led []string
	direct := d.directGroups(volume)
	own = union(d.groupNames(volume.Name), direct)
	if ai != nil {
		for _, instance := range ai.StorageInstances {
			active, led = union(active, instance.ActiveInitiators), union(led, otherGroups(&instance, nil))
		}
	}
	groups, err := array.InitiatorGroups(ctx, union(own, led)...)
	if err != nil {
		return nil, fmt.Errorf("ask %s who holds volume %s: %w", array.Server(), volume.AppInstance, err)
	}
	elsewhere, err := d.elsewhere(ctx, array, volume, groups, led)
	if err != nil {
		return nil, err
	}
	holders := slices.Clone(active)
	perhapsStale := false
	var holding []string
	for name, group := range groups {
		if len(group.Members) == 0 || slices.Contains(elsewhere, name) || slices.Contains(direct, name) {
			continue
		}
		perhapsStale = perhapsStale || slices.Contains(d.groupNames(volume.AppInstance), name)
		holders, holding = append(holders, group.Members...), append(holding, name)
	}
	if len(holders) > 0 {
		remedy := "delete the pods that use it first"
		if perhapsStale && len(active) == 0 {
			remedy += fmt.Sprintf("; nobody has a session, so if attach mode none left this grant, delete the volume where the configuration says %q: %q", "attach", AttachNone)
		}
		remedy += d.otherUse(ctx, array, holding, volume.AppInstance)
		slices.Sort(holders)
		return nil, fmt.Errorf("volume %s is in use by %s: %s", volume.AppInstance, strings.Join(slices.Compact(holders), ", "), remedy)
	}
	return slices.DeleteFunc(own, func(name string) bool { return slices.Contains(elsewhere, name) }), nil
}

// elsewhere are those groups of a volume that belong to another one: not this volume's ACL policy refers to them, as led do,
// but that one's. A list of readers belongs to the volume that the group of the same PersistentVolume belongs to.
func (d *Driver) elsewhere(ctx context.Context, array Array, volume Volume, groups map[string]*datera.InitiatorGroup, led []string) ([]string, error) {
	var names []string
	for _, name := range []string{volume.Name, volume.AppInstance} {
		group := groups[d.groupName(name)]
		if group == nil || len(group.Members) == 0 || slices.Contains(led, group.Name) {
			continue
		}
		elsewhere, err := d.leadsElsewhere(ctx, array, group.Name, volume.AppInstance)
		if err != nil {
			return nil, err
		}
		if elsewhere {
			names = append(names, d.groupNames(name)...)
		}
	}
	return names, nil
}
