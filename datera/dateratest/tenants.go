package dateratest

import (
	"path"
	"strings"
)

func (c *call) viewTenant(t *tenant) entity {
	below := []string{}
	for _, p := range sortedKeys(c.cluster.Tenants) {
		if path.Dir(p) == t.Path {
			below = append(below, p)
		}
	}
	parent := path.Dir(t.Path)
	if t.Path == rootTenant {
		parent = ""
	}
	return entity{"path": t.Path, "name": path.Base(t.Path), "descr": t.Descr, "parent_path": parent, "subtenants": below}
}

// within tells whether a tenant is the one of the header or below it: others do not exist for the caller.
func (c *call) within(p string) bool {
	return p == c.tenant.Path || strings.HasPrefix(p, c.tenant.Path+"/")
}

func listTenants(c *call) (any, error) {
	var items []entity
	for _, p := range sortedKeys(c.cluster.Tenants) {
		if c.within(p) && c.cluster.Users[c.user].within(p) {
			items = append(items, c.viewTenant(c.cluster.Tenants[p]))
		}
	}
	return c.page(items)
}

// namedTenant is the one that the path of the call names: /tenants/root/x, or as it stands in a tenant's own path, /root/x.
func (c *call) namedTenant() (*tenant, error) {
	p := strings.TrimPrefix(c.path, "/tenants")
	if t := c.cluster.Tenants[p]; t != nil && c.within(p) && c.cluster.Users[c.user].within(p) {
		return t, nil
	}
	return nil, notFound("/tenants" + p)
}

func readTenant(c *call) (any, error) {
	t, err := c.namedTenant()
	if err != nil {
		return nil, err
	}
	return c.viewTenant(t), nil
}

func createTenant(c *call) (any, error) {
	var in struct {
		Name   string  `json:"name"`
		Descr  *string `json:"descr"`
		Parent string  `json:"parent_path"`
	}
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	parent := firstOf(in.Parent, c.tenant.Path)
	if c.cluster.Tenants[parent] == nil || !c.within(parent) {
		return nil, notFound("tenant " + parent)
	}
	p := parent + "/" + in.Name
	if c.cluster.Tenants[p] != nil || "/"+in.Name == rootTenant {
		return nil, conflict("tenant %s exists already", in.Name)
	}
	t := newTenant(p, valueOf(in.Descr))
	c.cluster.Tenants[p] = t
	return c.viewTenant(t), nil
}

func updateTenant(c *call) (any, error) {
	t, err := c.namedTenant()
	if err != nil {
		return nil, err
	}
	if descr, ok := c.body["descr"].(string); ok {
		t.Descr = descr
	}
	return c.viewTenant(t), nil
}

func deleteTenant(c *call) (any, error) {
	t, err := c.namedTenant()
	if err != nil {
		return nil, err
	}
	if t.Path == rootTenant {
		return nil, refused("the root tenant cannot be deleted")
	}
	for p := range c.cluster.Tenants {
		if path.Dir(p) == t.Path {
			return nil, refused("tenant %s has the sub-tenant %s", t.Path, p)
		}
	}
	if n := len(t.AppInstances) + len(t.Initiators) + len(t.Groups) + len(t.Pools) + len(t.Templates) + len(t.Placements); n > 0 {
		return nil, refused("tenant %s is not empty: %d things are in it", t.Path, n)
	}
	view := c.viewTenant(t)
	delete(c.cluster.Tenants, t.Path)
	return view, nil
}
