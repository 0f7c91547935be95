package install

import (
	"context"
	"fmt"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
	"datera-flexvolume/driver/access"
)

// member is an initiator in an initiator group. Its name is asked for when it matters.
type member struct {
	iqn, group string
	name       func() (string, error) // under which it is registered; "" when it is not
}

// isOfCluster tells of members that are a cluster's nodes, or may be: one that is registered under no name says of no cluster
// that it is not its node's.
func isOfCluster(cluster string) func(member) (bool, error) {
	prefix := driver.GroupPrefix(cluster)
	return func(m member) (bool, error) {
		if strings.HasPrefix(m.group, prefix) { // as former versions called the groups of a cluster
			return true, nil
		}
		name, err := m.name()
		return strings.HasPrefix(name, prefix) || name == "" && access.Grants(m.group) != "", err
	}
}

// groupsWith are the initiator groups of this driver, in all tenants in which the cluster's volumes may be, with members that
// concern the caller.
func (i *Installer) groupsWith(ctx context.Context, config driver.Config, isLookedAt func(group string) bool, concerns func(member) (bool, error)) (groups []string, err error) {
	array, err := i.OpenArray(config)
	if err != nil {
		return nil, err
	}
	tenants, err := config.SearchTenants(ctx, array)
	if err != nil {
		return nil, err
	}
	for _, tenant := range tenants {
		config.Tenant = tenant
		if array, err = i.OpenArray(config); err != nil {
			return nil, err
		}
		found, err := array.InitiatorGroupsWithPrefix(ctx, driver.AllGroups)
		if err != nil {
			return nil, fmt.Errorf("list the initiator groups of tenant %s of %s: %w", tenant, array.Server(), err)
		}
		names := map[string]string{}
		for _, group := range found {
			var those []string
			for _, iqn := range group.Members {
				if !isLookedAt(group.Name) {
					continue
				}
				ours, err := concerns(member{iqn, group.Name, func() (string, error) { return nameOf(ctx, array, iqn, names) }})
				if err != nil {
					return nil, err
				}
				if ours {
					those = append(those, iqn)
				}
			}
			if len(those) > 0 {
				groups = append(groups, fmt.Sprintf("initiator group %s with %s", group.Name, strings.Join(those, " and ")))
			}
		}
	}
	return groups, nil
}

// nameOf is the name under which an initiator is registered, "" for none.
func nameOf(ctx context.Context, array Array, iqn string, known map[string]string) (string, error) {
	if name, found := known[iqn]; found {
		return name, nil
	}
	initiator, err := array.Initiator(ctx, iqn)
	switch {
	case datera.IsNotFound(err):
		known[iqn] = ""
	case err != nil:
		return "", fmt.Errorf("look up initiator %s on %s: %w", iqn, array.Server(), err)
	default:
		known[iqn] = initiator.Name
	}
	return known[iqn], nil
}
