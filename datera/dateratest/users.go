package dateratest

import (
	"path"
	"slices"
	"strings"
)

func (c *call) viewUser(u *user) entity {
	return entity{"path": "/users/" + u.ID, "user_id": u.ID, "full_name": u.FullName, "email": u.Email, "enabled": u.Enabled,
		"roles": references(u.Roles), "tenants": references(u.Tenants)}
}

func listUsers(c *call) (any, error) {
	var items []entity
	for _, id := range sortedKeys(c.cluster.Users) {
		items = append(items, c.viewUser(c.cluster.Users[id]))
	}
	return c.page(items)
}

func (c *call) namedUser() (*user, error) {
	if u := c.cluster.Users[c.variable("name")]; u != nil {
		return u, nil
	}
	return nil, notFound("/users/" + c.variable("name"))
}

func readUser(c *call) (any, error) {
	u, err := c.namedUser()
	if err != nil {
		return nil, err
	}
	return c.viewUser(u), nil
}

type userInput struct {
	ID       string  `json:"user_id"`
	FullName *string `json:"full_name"`
	Password *string `json:"password"`
	Email    *string `json:"email"`
	Enabled  *bool   `json:"enabled"`
	Roles    *[]ref  `json:"roles"`
	Tenants  *[]ref  `json:"tenants"`
}

func (in userInput) apply(u *user) {
	for _, f := range []struct{ to, from *string }{{&u.FullName, in.FullName}, {&u.Password, in.Password}, {&u.Email, in.Email}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if in.Enabled != nil {
		u.Enabled = *in.Enabled
	}
	for _, f := range []struct {
		to   *[]string
		from *[]ref
	}{{&u.Roles, in.Roles}, {&u.Tenants, in.Tenants}} {
		if f.from != nil {
			*f.to = paths(*f.from)
		}
	}
}

// check refuses roles and tenants that are not there.
func (in userInput) check(c *call) error {
	for _, r := range valueOf(in.Roles) {
		if !slices.Contains(roleNames(), strings.TrimPrefix(r.Path, "/roles/")) {
			return notFound(r.Path)
		}
	}
	for _, t := range valueOf(in.Tenants) {
		if c.cluster.Tenants[t.Path] == nil {
			return notFound(t.Path)
		}
	}
	return nil
}

func references(paths []string) []ref {
	out := make([]ref, 0, len(paths))
	for _, p := range paths {
		out = append(out, ref{p})
	}
	return out
}

func paths(references []ref) []string {
	out := make([]string, 0, len(references))
	for _, r := range references {
		out = append(out, r.Path)
	}
	return out
}

func createUser(c *call) (any, error) {
	var in userInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if c.cluster.Users[in.ID] != nil {
		return nil, conflict("user %s exists already", in.ID)
	}
	if err := in.check(c); err != nil {
		return nil, err
	}
	u := &user{ID: in.ID, Enabled: true, Tenants: []string{c.tenant.Path}}
	in.apply(u)
	c.cluster.Users[u.ID] = u
	return c.viewUser(u), nil
}

func updateUser(c *call) (any, error) {
	u, err := c.namedUser()
	if err != nil {
		return nil, err
	}
	var in userInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := in.check(c); err != nil {
		return nil, err
	}
	in.apply(u)
	return c.viewUser(u), nil
}

func deleteUser(c *call) (any, error) {
	u, err := c.namedUser()
	if err != nil {
		return nil, err
	}
	if u.ID == c.user {
		return nil, refused("user %s cannot delete itself", u.ID)
	}
	for value, k := range c.keys {
		if k.user == u.ID {
			delete(c.keys, value)
		}
	}
	delete(c.cluster.Users, u.ID)
	return c.viewUser(u), nil
}

func changeRoles(c *call) (any, error) {
	u, err := c.namedUser()
	if err != nil {
		return nil, err
	}
	var in memberInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	has := slices.Contains(u.Roles, in.Path)
	switch {
	case in.Op == "add" && has:
		return nil, conflict("user %s has the role %s already", u.ID, in.Path)
	case in.Op == "add" && !slices.Contains(roleNames(), strings.TrimPrefix(in.Path, "/roles/")), in.Op == "remove" && !has:
		return nil, notFound(in.Path)
	case in.Op == "add":
		u.Roles = append(u.Roles, in.Path)
	default:
		u.Roles = slices.DeleteFunc(u.Roles, func(r string) bool { return r == in.Path })
	}
	return viewRole(path.Base(in.Path)), nil
}

func roleNames() []string { return []string{"admin", "operator", "viewer"} }

func viewRole(name string) entity {
	return entity{"path": "/roles/" + name, "role_id": name, "privileges": []string{}}
}

func listUserRoles(c *call) (any, error) {
	u, err := c.namedUser()
	if err != nil {
		return nil, err
	}
	var items []entity
	for _, r := range u.Roles {
		items = append(items, viewRole(path.Base(r)))
	}
	return c.page(items)
}

func listRoles(c *call) (any, error) {
	var items []entity
	for _, name := range roleNames() {
		items = append(items, viewRole(name))
	}
	return c.page(items)
}

func readRole(c *call) (any, error) {
	name := c.variable("name")
	if !slices.Contains(roleNames(), name) {
		return nil, notFound("/roles/" + name)
	}
	return viewRole(name), nil
}
