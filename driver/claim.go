package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// claimsOf finds the groups of a PersistentVolume, of which detach knows the name alone, in all tenants: at once, or in one
// after the other where the array refuses that.
func (d *Driver) claimsOf(ctx context.Context, home Array, name string) ([]access.Group, error) {
	found, err := d.searchClaims(ctx, home, home.InitiatorGroupsOfAllTenants, name)
	if !errors.Is(err, datera.ErrRefused) {
		return found, err
	}
	tenants, err := d.tenants(ctx, home)
	if err != nil {
		return nil, err
	}
	found = nil
	for _, tenant := range tenants {
		array, err := d.configuredArray(tenant)
		if err != nil {
			return nil, err
		}
		more, err := d.searchClaims(ctx, array, array.InitiatorGroupsContaining, name)
		if err != nil {
			return nil, err
		}
		// What a tenant inherits is found where it belongs.
		more = slices.DeleteFunc(more, func(g access.Group) bool { return g.Tenant != "" && g.Tenant != tenant })
		found = append(found, more...)
	}
	return found, nil
}

// searchClaims finds the groups of today's names, and the one that versions before this one had.
func (d *Driver) searchClaims(ctx context.Context, array Array, search func(context.Context, string) ([]datera.InitiatorGroup, error), name string) ([]access.Group, error) {
	owner := d.owner(name)
	var found []access.Group
	for _, part := range []string{owner.Prefix(), owner.Former} {
		groups, err := search(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("find the claims on PersistentVolume %s on %s: %w", name, array.Server(), err)
		}
		for _, group := range groups {
			if owner.Owns(group.Name) && (group.Name == owner.Former) == (part == owner.Former) {
				found = append(found, access.Group{InitiatorGroup: group, In: array})
			}
		}
	}
	if !slices.ContainsFunc(found, func(g access.Group) bool { return g.Name == owner.Former }) {
		return found, nil
	}
	readers, err := search(ctx, formerReaders(d.Config.Cluster, name))
	for _, group := range readers {
		if group.Name == formerReaders(d.Config.Cluster, name) {
			found = append(found, access.Group{InitiatorGroup: group, In: array})
		}
	}
	return found, err
}

// tenants are those in which the cluster's volumes may be, the configured one first. A user who may not list them has those
// of the configuration.
func (d *Driver) tenants(ctx context.Context, home Array) ([]string, error) {
	others := d.Config.Tenants
	if others == nil {
		var err error
		if others, err = home.Tenants(ctx); err != nil && !errors.Is(err, datera.ErrRefused) {
			return nil, fmt.Errorf("list the tenants of %s: %w", home.Server(), err)
		}
	}
	tenants := []string{d.homeTenant()}
	for _, tenant := range others {
		if tenant = d.tenantOf(Volume{Tenant: tenant}); !slices.Contains(tenants, tenant) {
			tenants = append(tenants, tenant)
		}
	}
	return tenants, nil
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

// findClaims is claimsOf with each group in the tenant where it is.
func (d *Driver) findClaims(ctx context.Context, home Array, name string) ([]access.Group, error) {
	found, err := d.claimsOf(ctx, home, name)
	for i := range found {
		if tenant := found[i].Tenant; err == nil && tenant != "" && tenant != d.homeTenant() {
			found[i].In, err = d.configuredArray(tenant)
		}
	}
	return slices.DeleteFunc(found, func(g access.Group) bool { return len(g.Members) == 0 }), err
}
