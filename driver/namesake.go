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
// everybody else from that.
//
// A group is taken out of a policy only by somebody who is to be seen there himself, and never put back: who came by the
// group before is seen by him, who comes later sees him. Readers overlook each other, and a crash may come in between: then
// there is a group too many, which keeps more out than it must; the next attach of the volume that finds it without members
// takes it out.

// leaveFormerVolumes takes the group, of which a writer is the only member, out of the ACL policies of the volumes that had
// the name before.
func (g grant) leaveFormerVolumes(ctx context.Context) error {
	if g.volume.ReadOnly {
		return nil
	}
	leads, err := g.array.AppInstancesReferringTo(ctx, g.group())
	if err != nil {
		return fmt.Errorf("ask %s whether PersistentVolume %s led to another volume before: %w", g.array.Server(), g.volume.Name, err)
	}
	for _, ai := range leads {
		for _, former := range ai.StorageInstances {
			if isNamed(ai, g.volume.AppInstance) || !former.ACL.RefersTo(g.group()) {
				continue
			}
			if err := g.array.RemoveInitiatorGroup(ctx, former.Path, g.group()); err != nil {
				return fmt.Errorf("take initiator group %s out of the ACL policy of volume %s, which had the name of PersistentVolume %s before, on %s: %w",
					g.group(), ai.Name, g.volume.Name, g.array.Server(), err)
			}
		}
	}
	return nil
}

// shutVacantOut takes groups without members out of the ACL policy of a volume that the node has: they may lead to another
// volume by now, whose next user would be let in here as well. Who comes by one of them to this volume makes the policy
// refer to it again.
func (g grant) shutVacantOut(ctx context.Context, instance *datera.StorageInstance, groups []string) {
	for _, group := range groups {
		if err := g.array.RemoveInitiatorGroup(ctx, instance.Path, group); err != nil {
			g.driver.Log.WarnContext(ctx, "an initiator group without members stays in a volume's ACL policy until the next attach",
				"group", group, "volume", g.volume.AppInstance, "error", err)
		}
	}
}

// leadsElsewhere reports whether a group is another volume's than that of an app instance: ACL policies refer to it, and
// not that one's.
func (d *Driver) leadsElsewhere(ctx context.Context, array Array, group, appInstance string) (bool, error) {
	leads, err := array.AppInstancesReferringTo(ctx, group)
	if err != nil {
		return false, fmt.Errorf("ask %s which volumes initiator group %s is for: %w", array.Server(), group, err)
	}
	own := slices.ContainsFunc(leads, func(ai datera.AppInstance) bool { return isNamed(ai, appInstance) })
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
			if !isNamed(ai, appInstance) {
				uses = append(uses, fmt.Sprintf("; initiator group %s leads to volume %s, too: if only that one is used there, remove the group from the ACL policy of volume %s on the array",
					group, ai.Name, appInstance))
			}
		}
	}
	slices.Sort(uses)
	return strings.Join(uses, "")
}

// leadsNowhere reports whether surely no ACL policy refers to the group: of what it grants then nobody was told. It does so
// also when the call's time is up.
func (g grant) leadsNowhere(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	leads, err := g.array.AppInstancesReferringTo(ctx, g.group())
	return err == nil && len(leads) == 0
}

// isNamed reports whether an app instance is the one that an option names, by name or ID.
func isNamed(ai datera.AppInstance, appInstance string) bool {
	return ai.Name == appInstance || ai.ID == appInstance
}
