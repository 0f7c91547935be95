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

// owner is who claims a volume: by its name in Kubernetes or, in attach mode none, by that of the app instance.
func (d *Driver) owner(name string) access.Owner {
	return access.Owner{Cluster: d.Config.Identity(), PV: name, Former: entityNameFor(d.Config.Cluster, name)}
}

func (d *Driver) claim(array Array, volume Volume, node, iqn string) access.Claim {
	c := access.Claim{
		Array: array, Owner: d.owner(volume.Name), Volume: volume.AppInstance, Node: node, IQN: iqn, ReadOnly: volume.ReadOnly,
		Exempt: d.Config.Exempt,
		NodeOf: func(initiator string) string { return nodeOf(d.Config.Cluster, initiator) },
	}
	if d.Config.Attach == AttachNone {
		c.Evicts = true
		c.Note = func(string, string) error { return nil } // whether a pod was told shows in its mount
		c.Erase = c.Note
		return c
	}
	untold := func(volumeID, group string) intent {
		return intent{PV: volume.Name, Tenant: volume.Tenant, Node: node, VolumeID: volumeID, Group: group, IQN: iqn}
	}
	c.Note = func(volumeID, group string) error { return d.noteIntent(untold(volumeID, group)) }
	c.Erase = func(volumeID, group string) error { return d.eraseIntent(untold(volumeID, group)) }
	return c
}

// homeTenant is the configured tenant. A node is who is registered there, in whatever tenant a volume is: another cluster
// may have a node of the same name in another one.
func (d *Driver) homeTenant() string { return d.tenantOf(Volume{}) }

// search finds an owner's groups by a part of their names, in all tenants: at once, or in one after the other where the array
// refuses that.
func (d *Driver) search(ctx context.Context, home Array, owner access.Owner, part string) ([]access.Group, error) {
	found, err := d.searchAtOnce(ctx, home, part)
	if errors.Is(err, datera.ErrRefused) {
		found, err = d.searchEach(ctx, home, part)
	}
	if err != nil {
		return nil, fmt.Errorf("find the claims on PersistentVolume %s on %s: %w", owner.PV, home.Server(), err)
	}
	return slices.DeleteFunc(found, func(g access.Group) bool { return !owner.Owns(g.Name) }), nil
}

func (d *Driver) searchAtOnce(ctx context.Context, home Array, part string) ([]access.Group, error) {
	groups, err := home.InitiatorGroupsOfAllTenants(ctx, part)
	if err != nil {
		return nil, err
	}
	var found []access.Group
	for _, group := range groups {
		in := home
		if group.Tenant != d.homeTenant() {
			if in, err = d.configuredArray(group.Tenant); err != nil {
				return nil, err
			}
		}
		found = append(found, access.Group{InitiatorGroup: group, In: in})
	}
	return found, nil
}

func (d *Driver) searchEach(ctx context.Context, home Array, part string) ([]access.Group, error) {
	tenants, err := d.tenants(ctx, home)
	if err != nil {
		return nil, err
	}
	var found []access.Group
	for _, tenant := range tenants {
		array, err := d.configuredArray(tenant)
		if err != nil {
			return nil, err
		}
		groups, err := array.InitiatorGroupsContaining(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, group := range groups {
			switch {
			case group.Tenant == "" || group.Tenant == tenant:
				found = append(found, access.Group{InitiatorGroup: group, In: array})
			case !slices.Contains(tenants, group.Tenant): // else it is inherited, and found where it belongs
				return nil, fmt.Errorf("initiator group %s is in tenant %s, which is not among those that are searched (%s): add it to tenants in %s",
					group.Name, group.Tenant, strings.Join(tenants, ", "), d.Config.place())
			}
		}
	}
	return found, nil
}

// tenants are those in which the cluster's volumes may be, the configured one first. For a user who may not list them it is the
// only one: checkTenant lets no volume into another.
func (d *Driver) tenants(ctx context.Context, home Array) ([]string, error) {
	tenants, err := d.Config.SearchTenants(ctx, home)
	if errors.Is(err, datera.ErrRefused) {
		return []string{d.homeTenant()}, nil
	}
	return tenants, err
}

// checkTenant refuses a volume in a tenant in which detach would not find it again.
func (d *Driver) checkTenant(ctx context.Context, home Array, volume Volume) error {
	tenant := d.tenantOf(volume)
	if tenant == d.homeTenant() {
		return nil
	}
	if _, err := home.InitiatorGroupsOfAllTenants(ctx, d.owner(volume.Name).Prefix()); !errors.Is(err, datera.ErrRefused) {
		return err
	}
	tenants, err := d.tenants(ctx, home)
	if err == nil && !slices.Contains(tenants, tenant) {
		err = fmt.Errorf("volume %s is in tenant %s, and user %s may not list the tenants of %s, so detach would not find it: add the tenant to tenants in %s",
			volume.AppInstance, tenant, d.Config.Username, home.Server(), d.Config.place())
	}
	return err
}
