package dateratest

import (
	"net/http"
	"slices"
	"strings"
)

// allTenants in the header lists over all tenants that the user may see.
const allTenants = "all"

// enter checks the key and then the tenant and the user's rights. What needs no key is the same for all tenants, also for
// those that are yet to be made.
func (c *call) enter(open bool) error {
	c.tenant = c.cluster.Tenants[rootTenant]
	if open {
		return nil
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	name := firstOf(c.tenantHeader, rootTenant)
	c.all = name == allTenants
	if c.all && c.method != http.MethodGet {
		return refused("tenant %s is for lists only", allTenants)
	}
	if err := c.permit(name); err != nil || c.all {
		return err
	}
	if c.tenant = c.cluster.Tenants[name]; c.tenant == nil {
		return notFound("tenant " + name)
	}
	return nil
}

// permit refuses what the user has no right to: other tenants than his own and those below them; without the role of an
// administrator all that is about tenants, users and the cluster itself; with the role of a viewer alone all changes.
func (c *call) permit(tenant string) error {
	u := c.cluster.Users[c.user]
	changes := c.method != http.MethodGet && c.path != "/logout"
	switch {
	case tenant != allTenants && !u.within(tenant):
		return permissionDenied("user %s has no rights in tenant %s", u.ID, tenant)
	case slices.Contains(u.Roles, "/roles/admin"):
		return nil
	case slices.ContainsFunc([]string{"/tenants", rootTenant, "/users", "/roles"}, c.below),
		changes && slices.ContainsFunc([]string{"/system", "/storage_nodes", "/monitoring"}, c.below):
		return permissionDenied("user %s has no rights to %s %s", u.ID, c.method, c.path)
	case changes && slices.Equal(u.Roles, []string{"/roles/viewer"}):
		return permissionDenied("user %s may change nothing", u.ID)
	}
	return nil
}

func (c *call) below(path string) bool { return c.path == path || strings.HasPrefix(c.path, path+"/") }

// within tells whether a tenant is one of the user's or below one.
func (u *user) within(tenant string) bool {
	return slices.ContainsFunc(u.Tenants, func(own string) bool { return slices.Contains(lineage(tenant), own) })
}

// scope are the calls, one for each tenant, that a list goes over.
func (c *call) scope() []*call {
	if !c.all {
		return []*call{c}
	}
	var each []*call
	for _, p := range sortedKeys(c.cluster.Tenants) {
		if c.cluster.Users[c.user].within(p) {
			one := *c
			one.tenant = c.cluster.Tenants[p]
			each = append(each, &one)
		}
	}
	return each
}
