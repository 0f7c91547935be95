package driver

import (
	"context"
	"fmt"
	"slices"

	"datera-flexvolume/datera"
)

// A PersistentVolume that is made anew under its name may lead to another volume. Its group goes with the name. If the
// former volume's ACL policy referred to it any longer, whoever attaches the new volume would be let in to the former one,
// too, and would keep everybody else from it.

// leaveFormerVolumes takes the group out of the ACL policies of the volumes that had the name before, unless a member may
// still need it there: the node itself while it has a session, for what it has to write, and everybody else.
func (g grant) leaveFormerVolumes(ctx context.Context, instance *datera.StorageInstance, state grantState) error {
	if slices.ContainsFunc(state.members, func(iqn string) bool { return iqn != g.iqn }) {
		return nil
	}
	formers, err := g.array.StorageInstancesReferringTo(ctx, g.group())
	if err != nil {
		return fmt.Errorf("ask %s whether PersistentVolume %s led to another volume before: %w", g.array.Server(), g.volume.Name, err)
	}
	for _, former := range formers {
		if former.Path == instance.Path || haveInCommon(former.ActiveInitiators, state.members) {
			continue
		}
		if err := g.shutOut(ctx, former.Path, g.group()); err != nil {
			return err
		}
	}
	return nil
}

// shutStraysOut takes those groups out of the volume's ACL policy that are another volume's by now. If there are any, it
// returns what the array says of the volume then.
func (g grant) shutStraysOut(ctx context.Context, instance *datera.StorageInstance, state grantState, others []string) (*datera.StorageInstance, error) {
	groups, err := g.array.InitiatorGroups(ctx, others...)
	if err != nil {
		return nil, fmt.Errorf("ask %s who holds volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	shut := false
	for name, group := range groups {
		stray, err := g.driver.isElsewhere(ctx, g.array, group, instance, state.members)
		if err != nil {
			return nil, err
		}
		if !stray {
			continue
		}
		if err := g.shutOut(ctx, instance.Path, name); err != nil {
			return nil, err
		}
		shut = true
	}
	if !shut {
		return instance, nil
	}
	ai, err := g.array.AppInstance(ctx, g.volume.AppInstance)
	if err != nil {
		return nil, fmt.Errorf("ask %s who holds volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	return ai.StorageInstance()
}

func (g grant) shutOut(ctx context.Context, storageInstancePath, group string) error {
	if err := g.array.RemoveInitiatorGroup(ctx, storageInstancePath, group); err != nil {
		return fmt.Errorf("take initiator group %s out of the ACL policy of %s on %s, which had that PersistentVolume's name before: %w",
			group, storageInstancePath, g.array.Server(), err)
	}
	return nil
}

// isElsewhere reports whether a group belongs to another volume than instance, which is nil where that is not there: the
// other one's ACL policy alone refers to it, or its members have sessions there and none here, where those who are known
// have come by another group.
func (d *Driver) isElsewhere(ctx context.Context, array Array, group *datera.InitiatorGroup, instance *datera.StorageInstance, known []string) (bool, error) {
	if len(group.Members) == 0 {
		return false, nil
	}
	refers := instance != nil && instance.ACL.RefersTo(group.Name)
	unknown := slices.DeleteFunc(slices.Clone(group.Members), func(iqn string) bool { return slices.Contains(known, iqn) })
	if refers && haveInCommon(instance.ActiveInitiators, unknown) {
		return false, nil
	}
	volumes, err := array.StorageInstancesReferringTo(ctx, group.Name)
	if err != nil {
		return false, fmt.Errorf("ask %s which volumes initiator group %s is for: %w", array.Server(), group.Name, err)
	}
	return slices.ContainsFunc(volumes, func(other datera.StorageInstance) bool {
		return (instance == nil || other.Path != instance.Path) && (!refers || haveInCommon(other.ActiveInitiators, group.Members))
	}), nil
}

// elsewhere are those groups of a volume that belong to another one. A list of readers belongs to the volume that the group
// of the same PersistentVolume belongs to.
func (d *Driver) elsewhere(ctx context.Context, array Array, volume Volume, groups map[string]*datera.InitiatorGroup, instance *datera.StorageInstance) ([]string, error) {
	var names []string
	for name, group := range groups {
		found, err := d.isElsewhere(ctx, array, group, instance, nil)
		if err != nil {
			return nil, err
		}
		switch {
		case !found:
		case name == d.groupName(volume.Name):
			names = append(names, d.groupNames(volume.Name)...)
		case name == d.groupName(volume.AppInstance):
			names = append(names, d.groupNames(volume.AppInstance)...)
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

func haveInCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(element string) bool { return slices.Contains(b, element) })
}
