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
	claim := access.Claim{
		Array: array, Owner: d.owner(volume.Name), Volume: volume.AppInstance, Node: node, IQN: iqn, ReadOnly: volume.ReadOnly,
		Exempt: d.Config.Exempt,
		NodeOf: func(initiator string) string { return nodeOf(d.Config.Cluster, initiator) },
		Note:   func(string, string) error { return nil },
		Erase:  func() error { return nil },
	}
	if d.Config.Attach == AttachNone { // whether a pod was told shows in its mount
		claim.Evicts = true
		return claim
	}
	claim.Note = func(volumeID, group string) error {
		return d.intents().write(intent{PV: volume.Name, Tenant: volume.Tenant, Node: node, VolumeID: volumeID, Group: group, IQN: iqn})
	}
	claim.Erase = func() error { return d.intents().erase(volume.Name) }
	return claim
}

// withdrawUntold takes back the claims of attaches on this host that were killed: of them no caller was told, and no
// controller detaches them. The lock of held, if there is one, is the call's own.
func (d *Driver) withdrawUntold(ctx context.Context, held string) error {
	left, err := d.intents().all()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	for _, intent := range left {
		withdraw := func() error { return d.withdraw(ctx, intent) }
		if intent.PV == held {
			err = withdraw()
		} else {
			err = d.ifFree(intent.PV, withdraw)
		}
		if err != nil {
			d.Log.WarnContext(ctx, "the claim of an attach that was killed stays until the next call", "volume", intent.PV, "node", intent.Node, "error", err)
		}
	}
	return nil
}

// withdraw takes one claim back, unless its node has a session: then an attach on another host has told it since.
func (d *Driver) withdraw(ctx context.Context, i intent) error {
	if again, err := d.intents().read(i.PV); err != nil || again != i {
		return err // its own call, or another one, has ended meanwhile
	}
	array, err := d.configuredArray(i.Tenant)
	if err != nil {
		return err
	}
	seen, err := access.Survey(ctx, array, i.VolumeID)
	used := func(h access.Holder) bool { return h.Session && datera.SameIQN(h.IQN, i.IQN) }
	switch {
	case errors.Is(err, datera.ErrNotFound): // the volume, and all claims with it
	case err != nil:
		return err
	case !slices.ContainsFunc(seen.Holders(nil), used):
		if _, err := array.RemoveMember(ctx, i.Group, i.IQN); err != nil {
			return err
		}
	}
	return d.intents().erase(i.PV)
}

// claimsOf finds the groups of a PersistentVolume in all tenants: at once, or one tenant after the other where the array
// refuses that.
func (d *Driver) claimsOf(ctx context.Context, home Array, name string) ([]access.Group, error) {
	groups, err := d.searchClaims(ctx, home, home.InitiatorGroupsOfAllTenants, "", name)
	if !errors.Is(err, datera.ErrRefused) {
		return groups, err
	}
	tenants, err := d.otherTenants(ctx, home)
	if err != nil {
		return nil, err
	}
	groups = nil
	for _, tenant := range append([]string{d.homeTenant()}, tenants...) {
		array, err := d.configuredArray(tenant)
		if err != nil {
			return nil, err
		}
		more, err := d.searchClaims(ctx, array, array.InitiatorGroupsContaining, tenant, name)
		if err != nil {
			return nil, err
		}
		groups = append(groups, more...)
	}
	return groups, nil
}

// otherTenants are those beside the configured one in which the cluster's volumes may be. A user who may not list tenants
// has those of the configuration: attach lets no volume into another.
func (d *Driver) otherTenants(ctx context.Context, home Array) ([]string, error) {
	if len(d.Config.Tenants) > 0 {
		return d.Config.Tenants, nil
	}
	tenants, err := home.Tenants(ctx)
	if errors.Is(err, datera.ErrRefused) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the tenants of %s: %w", home.Server(), err)
	}
	return slices.DeleteFunc(tenants, func(tenant string) bool { return tenant == d.homeTenant() }), nil
}

func (d *Driver) homeTenant() string { return d.tenantOf(Volume{}) }

// searchClaims finds the owner's groups of today's names, and the one of the former name, by one way to search. What a tenant
// inherits is found where it belongs.
func (d *Driver) searchClaims(ctx context.Context, array Array, search func(context.Context, string) ([]datera.InitiatorGroup, error),
	tenant, name string) ([]access.Group, error) {
	owner := d.owner(name)
	var groups []access.Group
	for _, part := range []string{owner.Prefix(), owner.Former} {
		found, err := search(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("find the claims on PersistentVolume %s on %s: %w", name, array.Server(), err)
		}
		for _, group := range found {
			former := group.Name == owner.Former
			if !owner.Owns(group.Name) || former != (part == owner.Former) || tenant != "" && group.Tenant != "" && group.Tenant != tenant {
				continue
			}
			in := array
			if tenant == "" && group.Tenant != d.homeTenant() {
				if in, err = d.configuredArray(group.Tenant); err != nil {
					return nil, err
				}
			}
			groups = append(groups, access.Group{InitiatorGroup: group, Array: in})
		}
	}
	return groups, nil
}
