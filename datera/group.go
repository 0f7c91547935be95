package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// InitiatorGroup is a set of initiators that ACLs can name.
type InitiatorGroup struct {
	Path    string
	Name    string   // the last element of Path
	Tenant  string   // empty when the array does not say it
	Members []string // IQNs
}

// UnmarshalJSON takes the IQNs from the paths of the members. A group that does not say who is in it is an error: taken for
// empty it would leave a host with access to a volume.
func (g *InitiatorGroup) UnmarshalJSON(b []byte) error {
	var itself Reference
	var w struct {
		Members []Reference `json:"members"`
	}
	if err := errors.Join(json.Unmarshal(b, &itself), json.Unmarshal(b, &w)); err != nil {
		return err
	}
	if err := itself.within("initiator_groups"); err != nil {
		return err
	}
	if w.Members == nil {
		return fmt.Errorf("initiator group %s does not say who is in it (members)", itself.Name)
	}
	if err := allWithin("initiators", w.Members); err != nil {
		return fmt.Errorf("initiator group %s: %w", itself.Name, err)
	}
	*g = InitiatorGroup{Path: itself.Path, Name: itself.Name, Tenant: itself.Tenant, Members: append([]string{}, lastElements(w.Members)...)}
	return nil
}

// groupName is the name of an element of a list of groups. No more of it need be understood: a group that is unlike all others
// must not be in the way.
func groupName(element json.RawMessage) (string, error) {
	var r Reference
	if err := json.Unmarshal(element, &r); err != nil {
		return "", err
	}
	return r.Name, r.within("initiator_groups")
}

// is says whether a group is the one of this name.
func (g *InitiatorGroup) is(name string) error {
	if g.Name != name {
		return fmt.Errorf("it is initiator group %q, not %q", printable(g.Name, maxName), name)
	}
	return nil
}

// InitiatorGroup reads one group.
func (c *Client) InitiatorGroup(ctx context.Context, name string) (*InitiatorGroup, error) {
	return fetch(ctx, c, request{at: at("initiator_groups", name)}, func(g *InitiatorGroup) error { return g.is(name) })
}

// InitiatorGroupsContaining lists the tenant's groups whose names contain part, sorted by name; all of them for "".
func (c *Client) InitiatorGroupsContaining(ctx context.Context, part string) ([]InitiatorGroup, error) {
	return c.groupsContaining(ctx, listing{collection: "initiator_groups"}, part)
}

// InitiatorGroupsOfAllTenants is InitiatorGroupsContaining for all tenants at once; errors.Is(err, ErrRefused) when the
// array does not list them so. Each group says its tenant.
func (c *Client) InitiatorGroupsOfAllTenants(ctx context.Context, part string) ([]InitiatorGroup, error) {
	groups, err := c.groupsContaining(ctx, listing{collection: "initiator_groups", tenant: allTenants}, part)
	var e *APIError
	if errors.As(err, &e) && e.Status == http.StatusNotFound { // no tenant of that name
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if !isTenant(g.Tenant) {
			return nil, fmt.Errorf("%w to a list of the initiator groups of all tenants of %s: group %s does not say its tenant", errUnclear, c.server, g.Name)
		}
	}
	return groups, nil
}

// allTenants in place of a tenant is understood by the vendor's tools (python-sdk, src/dfs_sdk/scaffold.py).
const allTenants = "all"

func (c *Client) groupsContaining(ctx context.Context, l listing, part string) ([]InitiatorGroup, error) {
	if part != "" && !filterable.MatchString(part) {
		return nil, fmt.Errorf("find initiator groups whose names contain %q: it must be of letters, digits, dots, _ and -", printable(part, maxName))
	}
	return c.groups(ctx, l, part)
}

func (c *Client) groups(ctx context.Context, l listing, part string) ([]InitiatorGroup, error) {
	elements, err := c.containing(ctx, l, part, groupName)
	if err != nil {
		return nil, err
	}
	groups, err := understood[InitiatorGroup](c, l, elements)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(groups, func(a, b InitiatorGroup) int { return strings.Compare(a.Name, b.Name) })
	return groups, nil
}

// InitiatorGroupsWithPrefix lists the tenant's groups whose names begin so, sorted by name; all of them for "".
func (c *Client) InitiatorGroupsWithPrefix(ctx context.Context, prefix string) ([]InitiatorGroup, error) {
	groups, err := c.groups(ctx, listing{collection: "initiator_groups"}, prefix)
	return slices.DeleteFunc(groups, func(g InitiatorGroup) bool { return !strings.HasPrefix(g.Name, prefix) }), err
}

// CreateInitiatorGroup makes a group. When the array has one of this name it returns that as it is, with created false.
func (c *Client) CreateInitiatorGroup(ctx context.Context, name string, iqns ...string) (group *InitiatorGroup, created bool, err error) {
	body := struct {
		Name    string   `json:"name"`
		Members []pathTo `json:"members"`
	}{name, []pathTo{}}
	for _, iqn := range iqns {
		member := at("initiators", iqn)
		if member.err != nil {
			return nil, false, member.err
		}
		body.Members = append(body.Members, pathTo{member.path})
	}
	if err := checkName(name); err != nil {
		return nil, false, fmt.Errorf("create initiator group: %w", err)
	}
	asked := func(g *InitiatorGroup) error {
		missing := slices.DeleteFunc(slices.Clone(iqns), func(iqn string) bool { return ContainsIQN(g.Members, iqn) })
		if len(missing) > 0 {
			return fmt.Errorf("the new initiator group %s is without %s", name, strings.Join(missing, ", "))
		}
		return g.is(name)
	}
	return create(ctx, c, request{at: at("initiator_groups"), body: body}, asked, func() (*InitiatorGroup, error) {
		return c.InitiatorGroup(ctx, name)
	})
}

// AddMember adds an initiator to a group and returns the group, which has it. It is not an error when the initiator is a member
// already.
func (c *Client) AddMember(ctx context.Context, group, iqn string) (*InitiatorGroup, error) {
	return c.changeMembers(ctx, group, iqn, "add")
}

// RemoveMember takes an initiator from a group and returns the group, which is without it: the array has shown that. It is not an
// error when the initiator is not a member; a group that is not there is returned with no path and no members.
func (c *Client) RemoveMember(ctx context.Context, group, iqn string) (*InitiatorGroup, error) {
	return c.changeMembers(ctx, group, iqn, "remove")
}

func (c *Client) changeMembers(ctx context.Context, group, iqn, op string) (*InitiatorGroup, error) {
	member := at("initiators", iqn)
	if member.err != nil {
		return nil, member.err
	}
	r := request{method: put, at: at("initiator_groups", group, "members"), body: operation{member.path, op}}
	shows := func(g *InitiatorGroup) error {
		switch has := ContainsIQN(g.Members, iqn); {
		case has && op == "remove":
			return fmt.Errorf("initiator group %s still contains %s: remove it there by hand", group, iqn)
		case !has && op == "add":
			return fmt.Errorf("initiator group %s does not contain %s", group, iqn)
		}
		return g.is(group)
	}
	return change(ctx, c, r, shows, func() (*InitiatorGroup, error) {
		g, err := c.InitiatorGroup(ctx, group)
		if IsNotFound(err) && op == "remove" {
			return &InitiatorGroup{Name: group, Members: []string{}}, nil
		}
		return g, err
	})
}

// DeleteInitiatorGroup deletes a group. It is not an error when it is not there.
func (c *Client) DeleteInitiatorGroup(ctx context.Context, name string) error {
	err := c.call(ctx, remove, at("initiator_groups", name), nil, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}
