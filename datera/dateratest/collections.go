package dateratest

import (
	"slices"
	"strings"
)

// own finds something of the tenant's own, for changes: what is inherited can only be read.
func own[T any](c *call, collection, name string, of func(*tenant) map[string]T) (T, error) {
	found, owner, ok := inherited(c.cluster, c.tenant.Path, name, of)
	switch {
	case !ok:
		return found, notFound(collection + "/" + name)
	case owner != c.tenant.Path:
		return found, refused("%s/%s belongs to tenant %s", collection, name, owner)
	}
	return found, nil
}

// read answers one thing, own or inherited.
func read[T any](c *call, collection string, of func(*tenant) map[string]T, view func(*call, T, string) entity) (any, error) {
	found, owner, ok := inherited(c.cluster, c.tenant.Path, c.variable("name"), of)
	if !ok {
		return nil, notFound(collection + "/" + c.variable("name"))
	}
	return view(c, found, owner), nil
}

// listOf answers all things of a kind, own and inherited; over all tenants each one once, with the tenant that has it.
func listOf[T any](c *call, of func(*tenant) map[string]T, view func(*call, T, string) entity) (any, error) {
	var items []entity
	for _, one := range c.scope() {
		for _, name := range visible(c.cluster, one.tenant.Path, of) {
			found, owner, _ := inherited(c.cluster, one.tenant.Path, name, of)
			if c.all && owner != one.tenant.Path {
				continue
			}
			item := view(one, found, owner)
			if c.all {
				item["tenant"] = owner
			}
			items = append(items, item)
		}
	}
	return c.page(items)
}

// remove deletes one of the tenant's own things unless something still uses it.
func remove[T any](c *call, collection string, of func(*tenant) map[string]T, view func(*call, T, string) entity) (any, error) {
	name := c.variable("name")
	found, err := own(c, collection, name, of)
	if err != nil {
		return nil, err
	}
	if by := c.usedBy(collection + "/" + name); by != "" {
		return nil, refused("%s/%s is in use by %s", collection, name, by)
	}
	delete(of(c.tenant), name)
	return view(c, found, c.tenant.Path), nil
}

// usedBy names the first user of the tenant's thing at a path, in its tenant or one that inherits it.
func (c *call) usedBy(path string) string {
	for _, t := range c.cluster.Tenants {
		if !slices.Contains(lineage(t.Path), c.tenant.Path) {
			continue
		}
		for _, g := range t.Groups {
			if slices.Contains(g.Members, path) {
				return "/initiator_groups/" + g.Name
			}
		}
		for _, ai := range t.AppInstances {
			if ai.Template == path {
				return ai.path()
			}
			for _, si := range ai.Storage {
				if si.uses(path) {
					return si.path(ai)
				}
			}
		}
	}
	return ""
}

func (si *storageInstance) uses(path string) bool {
	return si.Pool == path || slices.Contains(si.Initiators, path) || slices.Contains(si.Groups, path) ||
		slices.ContainsFunc(si.Volumes, func(v *volume) bool { return v.PlacementPolicy == path })
}

// resolved is a reference to something that may be inherited. What is not there, like the template of an app
// instance without one, has empty members.
func resolved[T any](c *call, collection, path string, of func(*tenant) map[string]T) entity {
	out := entity{"path": path, "resolved_path": "", "resolved_tenant": ""}
	if _, owner, ok := follow(c, collection, path, of); ok {
		out["resolved_path"], out["resolved_tenant"] = path, owner
	}
	return out
}

// follow finds what a reference like /app_templates/basic leads to.
func follow[T any](c *call, collection, path string, of func(*tenant) map[string]T) (found T, owner string, ok bool) {
	name, inCollection := strings.CutPrefix(path, collection+"/")
	if !inCollection {
		return found, "", false
	}
	return inherited(c.cluster, c.tenant.Path, name, of)
}

// lineage is a tenant's own path and those it inherits from, nearest first.
func lineage(path string) []string {
	var up []string
	for p := path; p != ""; p = p[:max(strings.LastIndexByte(p, '/'), 0)] {
		up = append(up, p)
	}
	return up
}

// inherited finds a named thing in the tenant or the nearest of its parents that has one.
func inherited[T any](c *cluster, tenantPath, name string, of func(*tenant) map[string]T) (found T, owner string, ok bool) {
	for _, p := range lineage(tenantPath) {
		if t := c.Tenants[p]; t != nil {
			if found, ok = of(t)[name]; ok {
				return found, p, true
			}
		}
	}
	return found, "", false
}

// visible lists the names that a tenant sees, its own and inherited ones, sorted.
func visible[T any](c *cluster, tenantPath string, of func(*tenant) map[string]T) []string {
	var names []string
	for _, p := range lineage(tenantPath) {
		for name := range of(c.Tenants[p]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func pools(t *tenant) map[string]*ipPool          { return t.Pools }
func initiators(t *tenant) map[string]*initiator  { return t.Initiators }
func groups(t *tenant) map[string]*initiatorGroup { return t.Groups }
func templates(t *tenant) map[string]*appTemplate { return t.Templates }
func placements(t *tenant) map[string]*placement  { return t.Placements }
func mediaPolicies(t *tenant) map[string]*media   { return t.Media }
