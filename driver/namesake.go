package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/datera"
)

// A PersistentVolume that is made anew under its name may lead to another volume. Its group goes with the name: as long as
// the former volume's ACL policy refers to it, too, whoever attaches the new volume is let in to the former one, and keeps
// everybody else from that. A group is taken out of a policy only while it has no members: nobody has come by it then.

// leaveFormerVolumes takes the group out of the ACL policies of the volumes that had the name before.
func (g grant) leaveFormerVolumes(ctx context.Context) error {
	leads, err := g.array.AppInstancesReferringTo(ctx, g.group())
	if err != nil {
		return fmt.Errorf("ask %s whether PersistentVolume %s led to another volume before: %w", g.array.Server(), g.volume.Name, err)
	}
	for _, ai := range leads {
		for _, former := range ai.StorageInstances {
			if ai.Name == g.volume.AppInstance || !former.ACL.RefersTo(g.group()) {
				continue
			}
			if err := g.shutOut(ctx, former.Path, g.group()); err != nil {
				return fmt.Errorf("volume %s had the name of PersistentVolume %s before: %w", ai.Name, g.volume.Name, err)
			}
		}
	}
	return nil
}

// shutVacantOut takes groups without members out of the volume's ACL policy: they may lead to another volume by now, whose
// next user would be let in here as well. Who comes by one of them to this volume makes the policy refer to it again.
func (g grant) shutVacantOut(ctx context.Context, instance *datera.StorageInstance, groups []string) error {
	for _, group := range groups {
		if err := g.shutOut(ctx, instance.Path, group); err != nil {
			return fmt.Errorf("volume %s has the initiator group of another PersistentVolume or cluster: %w", g.volume.AppInstance, err)
		}
	}
	return nil
}

// shutOut takes a group out of an ACL policy, unless somebody joins it meanwhile. Who joins looks for the reference
// afterwards (lookAgain), and who removes that looks for members afterwards: one of them sees the other.
func (g grant) shutOut(ctx context.Context, storageInstancePath, group string) error {
	members, err := g.membersOf(ctx, group)
	if err != nil || len(members) > 0 {
		return err
	}
	if err := g.array.RemoveInitiatorGroup(ctx, storageInstancePath, group); err != nil {
		return fmt.Errorf("take initiator group %s out of the ACL policy of %s on %s: %w", group, storageInstancePath, g.array.Server(), err)
	}
	members, err = g.membersOf(ctx, group)
	if err == nil && len(members) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if backErr := g.array.AddInitiatorGroup(ctx, storageInstancePath, group); backErr != nil {
		return fmt.Errorf("put initiator group %s, which %v may have joined meanwhile, back into the ACL policy of %s on %s: %w",
			group, members, storageInstancePath, g.array.Server(), backErr)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%v joined initiator group %s of %s while node %s attached volume %s: it is tried again", members, group, storageInstancePath, g.node, g.volume.AppInstance)
}

func (g grant) membersOf(ctx context.Context, group string) ([]string, error) {
	groups, err := g.array.InitiatorGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("ask %s for the members of initiator group %s: %w", g.array.Server(), group, err)
	}
	if groups[group] == nil {
		return nil, nil
	}
	return groups[group].Members, nil
}

// leadsElsewhere reports whether a group is another volume's than that of an app instance: ACL policies refer to it, and
// not that one's.
func (d *Driver) leadsElsewhere(ctx context.Context, array Array, group, appInstance string) (bool, error) {
	leads, err := array.AppInstancesReferringTo(ctx, group)
	if err != nil {
		return false, fmt.Errorf("ask %s which volumes initiator group %s is for: %w", array.Server(), group, err)
	}
	own := slices.ContainsFunc(leads, func(ai datera.AppInstance) bool { return ai.Name == appInstance })
	return len(leads) > 0 && !own, nil
}

// otherUse says which other volumes the groups lead to by which somebody holds that of an app instance: he may use one of
// those instead. It is "" when there are none.
func (d *Driver) otherUse(ctx context.Context, array Array, groups []string, appInstance string) string {
	var uses []string
	for _, group := range groups {
		leads, err := array.AppInstancesReferringTo(ctx, group)
		if err != nil {
			return "" // it adds to an error only
		}
		for _, ai := range leads {
			if ai.Name != appInstance {
				uses = append(uses, fmt.Sprintf("initiator group %s leads to volume %s, too", group, ai.Name))
			}
		}
	}
	if len(uses) == 0 {
		return ""
	}
	slices.Sort(uses)
	return fmt.Sprintf(" (%s: if only that one is used there, remove the group from the ACL policy of volume %s on the array)", strings.Join(uses, "; "), appInstance)
}

// isForFormer reports whether a grant of a node that was a member before the call may be for a volume that had the name
// before. What cannot be asked may be so.
func (g grant) isForFormer(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	elsewhere, err := g.driver.leadsElsewhere(ctx, g.array, g.group(), g.volume.AppInstance)
	return elsewhere || err != nil
}
