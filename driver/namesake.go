package driver

import (
	"context"
	"fmt"
	"slices"

	"datera-flexvolume/datera"
)

// A PersistentVolume that is made anew under its name may lead to another volume. Its group goes with the name: as long as
// the former volume's ACL policy refers to it, too, whoever attaches the new volume is let in to the former one, and keeps
// everybody else from that. A group is taken out of a policy only while it has no members: nobody has come by it then.

// leaveFormerVolumes takes the group out of the ACL policies of the volumes that had the name before.
func (g grant) leaveFormerVolumes(ctx context.Context, instance *datera.StorageInstance) error {
	leads, err := g.array.AppInstancesReferringTo(ctx, g.group())
	if err != nil {
		return fmt.Errorf("ask %s whether PersistentVolume %s led to another volume before: %w", g.array.Server(), g.volume.Name, err)
	}
	for _, ai := range leads {
		for _, former := range ai.StorageInstances {
			if has(ai, instance) || !former.ACL.RefersTo(g.group()) {
				continue
			}
			if err := g.shutOut(ctx, former.Path, g.group()); err != nil {
				return fmt.Errorf("volume %s had the name of PersistentVolume %s before: %w", ai.Name, g.volume.Name, err)
			}
		}
	}
	return nil
}

// shutStraysOut takes those of some groups without members out of the volume's ACL policy that lead to another volume by
// now: their next member would be let in here as well.
func (g grant) shutStraysOut(ctx context.Context, instance *datera.StorageInstance, groups []string) error {
	for _, group := range groups {
		elsewhere, err := g.driver.leadsElsewhere(ctx, g.array, group, instance)
		if err != nil {
			return err
		}
		if !elsewhere {
			continue
		}
		if err := g.shutOut(ctx, instance.Path, group); err != nil {
			return fmt.Errorf("another volume has the name of which volume %s has the initiator group still: %w", g.volume.AppInstance, err)
		}
	}
	return nil
}

// shutOut takes a group out of an ACL policy, unless somebody has joined it by now.
func (g grant) shutOut(ctx context.Context, storageInstancePath, group string) error {
	groups, err := g.array.InitiatorGroups(ctx, group)
	if err == nil && (groups[group] == nil || len(groups[group].Members) == 0) {
		err = g.array.RemoveInitiatorGroup(ctx, storageInstancePath, group)
	}
	if err != nil {
		return fmt.Errorf("take initiator group %s out of the ACL policy of %s on %s: %w", group, storageInstancePath, g.array.Server(), err)
	}
	return nil
}

// leadsElsewhere reports whether the ACL policy of an app instance refers to a group, other than that of instance, if any.
func (d *Driver) leadsElsewhere(ctx context.Context, array Array, group string, instance *datera.StorageInstance) (bool, error) {
	leads, err := array.AppInstancesReferringTo(ctx, group)
	if err != nil {
		return false, fmt.Errorf("ask %s which volumes initiator group %s is for: %w", array.Server(), group, err)
	}
	return slices.ContainsFunc(leads, func(ai datera.AppInstance) bool { return !has(ai, instance) }), nil
}

func has(ai datera.AppInstance, instance *datera.StorageInstance) bool {
	return instance != nil && slices.ContainsFunc(ai.StorageInstances, func(own datera.StorageInstance) bool { return own.Path == instance.Path })
}
