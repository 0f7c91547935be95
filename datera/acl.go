package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ACL lists who may log in to a target whose access control mode is deny_all.
type ACL struct {
	Initiators      []Reference `json:"initiators"`
	InitiatorGroups []Reference `json:"initiator_groups"`
}

// RefersTo reports whether the members of a group may log in.
func (a ACL) RefersTo(group string) bool {
	return slices.Contains(lastElements(a.InitiatorGroups), group)
}

// How initiator and target prove who they are.
const (
	AuthNone       = "none"
	AuthCHAP       = "chap"
	AuthMutualCHAP = "mchap"
)

// Auth is the CHAP setting of a target. What the host must present is called Target…, what the target
// presents in return, with mutual CHAP, Initiator…. Passwords have 12 to 16 characters; the array never
// tells them.
type Auth struct {
	Type              string `json:"type"`
	TargetUserName    string `json:"target_user_name"`
	TargetPassword    string `json:"-"`
	InitiatorUserName string `json:"initiator_user_name"`
	InitiatorPassword string `json:"-"`
}

// String names type and users, not the passwords.
func (a Auth) String() string {
	return fmt.Sprintf("%s %s %s", a.Type, a.TargetUserName, a.InitiatorUserName)
}

func (a Auth) secrets() []string { return []string{a.TargetPassword, a.InitiatorPassword} }

type authBody struct {
	Type              string `json:"type"`
	TargetUserName    string `json:"target_user_name,omitempty"`
	TargetPassword    string `json:"target_pswd,omitempty"`
	InitiatorUserName string `json:"initiator_user_name,omitempty"`
	InitiatorPassword string `json:"initiator_pswd,omitempty"`
}

func (a Auth) body() (*authBody, error) {
	switch {
	case a.Type == AuthNone || a.Type == "":
		return &authBody{Type: AuthNone}, nil
	case a.Type != AuthCHAP && a.Type != AuthMutualCHAP:
		return nil, fmt.Errorf("authentication %q: it must be %s, %s or %s", a.Type, AuthNone, AuthCHAP, AuthMutualCHAP)
	case a.TargetUserName == "" || a.TargetPassword == "":
		return nil, errors.New("CHAP needs the user name and the password that the host presents")
	case a.Type == AuthCHAP:
		return &authBody{Type: AuthCHAP, TargetUserName: a.TargetUserName, TargetPassword: a.TargetPassword}, nil
	case a.InitiatorUserName == "" || a.InitiatorPassword == "":
		return nil, errors.New("mutual CHAP needs the user name and the password that the target presents")
	}
	return &authBody{a.Type, a.TargetUserName, a.TargetPassword, a.InitiatorUserName, a.InitiatorPassword}, nil
}

// SetAuth sets the CHAP setting of a target. It counts for logins from then on.
func (c *Client) SetAuth(ctx context.Context, storageInstancePath string, a Auth) error {
	body, err := a.body()
	if err != nil {
		return fmt.Errorf("set the authentication of %s: %w", storageInstancePath, err)
	}
	_, err = c.do(ctx, request{method: put, at: under(storageInstancePath, "auth"), body: body, secrets: a.secrets()}, nil)
	return err
}

// operation changes one element of a list on the array, which leaves the others alone whoever else writes.
type operation struct {
	Path string `json:"path"`
	Op   string `json:"op"` // add or remove
}

// AddInitiatorGroup lets the members of a group log in to a target. It is no error when they may already.
func (c *Client) AddInitiatorGroup(ctx context.Context, storageInstancePath, group string) error {
	item := at("initiator_groups", group)
	if item.err != nil {
		return item.err
	}
	err := c.call(ctx, put, under(storageInstancePath, "acl_policy", "initiator_groups"), operation{item.path, "add"}, nil)
	if IsConflict(err) {
		return nil
	}
	return err
}

// RemoveInitiatorGroup keeps the members of a group out of a target again, unless another of its groups or its initiators
// lets them in. It is no error when the ACL does not name the group, or the target is not there.
func (c *Client) RemoveInitiatorGroup(ctx context.Context, storageInstancePath, group string) error {
	item := at("initiator_groups", group)
	if item.err != nil {
		return item.err
	}
	err := c.call(ctx, put, under(storageInstancePath, "acl_policy", "initiator_groups"), operation{item.path, "remove"}, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// AppInstancesReferringTo lists the tenant's app instances with a target whose ACL names a group: their names, and of their
// targets paths and ACLs. It reads all app instances of the tenant: the API has no way from a group to them.
func (c *Client) AppInstancesReferringTo(ctx context.Context, group string) ([]AppInstance, error) {
	// No more than is needed is understood: one that is unlike all others must not be in the way.
	type outline struct {
		Name             string `json:"name"`
		ID               string `json:"id"`
		StorageInstances []struct {
			Path string `json:"path"`
			ACL  ACL    `json:"acl_policy"`
		} `json:"storage_instances"`
	}
	all, err := list[outline](ctx, c, at("app_instances"), "", 0)
	if err != nil {
		return nil, err
	}
	var found []AppInstance
	for _, o := range all {
		ai := AppInstance{Name: o.Name, ID: o.ID}
		refers := false
		for _, instance := range o.StorageInstances {
			ai.StorageInstances = append(ai.StorageInstances, StorageInstance{Path: instance.Path, ACL: instance.ACL})
			refers = refers || instance.ACL.RefersTo(group)
		}
		if refers {
			found = append(found, ai)
		}
	}
	return found, nil
}

// InitiatorGroup is a set of initiators that ACLs can name.
type InitiatorGroup struct {
	Path    string
	Name    string
	Tenant  string
	Members []string // IQNs
}

// UnmarshalJSON takes the IQNs from the paths of the members.
func (g *InitiatorGroup) UnmarshalJSON(b []byte) error {
	var w struct {
		Path    string      `json:"path"`
		Name    string      `json:"name"`
		Tenant  string      `json:"tenant"`
		Members []Reference `json:"members"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*g = InitiatorGroup{Path: w.Path, Name: w.Name, Tenant: w.Tenant, Members: lastElements(w.Members)}
	return nil
}

func lastElements(references []Reference) []string {
	var names []string
	for _, r := range references {
		names = append(names, r.last())
	}
	return names
}

// InitiatorGroups reads the groups of these names, in one request. Those that are not there are not in the map.
func (c *Client) InitiatorGroups(ctx context.Context, names ...string) (map[string]*InitiatorGroup, error) {
	found := make(map[string]*InitiatorGroup, len(names))
	if len(names) == 0 {
		return found, nil
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("find initiator group: %w", err)
		}
	}
	groups, err := list[InitiatorGroup](ctx, c, at("initiator_groups"), named(names...), len(names))
	if err != nil {
		return nil, err
	}
	for i := range groups {
		if slices.Contains(names, groups[i].Name) {
			found[groups[i].Name] = &groups[i]
		}
	}
	return found, nil
}

// InitiatorGroupsWithPrefix lists the tenant's groups whose names begin so, sorted by name. The array's filter is not asked:
// what its patterns can is known of whole names only.
func (c *Client) InitiatorGroupsWithPrefix(ctx context.Context, prefix string) ([]InitiatorGroup, error) {
	groups, err := list[InitiatorGroup](ctx, c, at("initiator_groups"), "", 0)
	if err != nil {
		return nil, err
	}
	groups = slices.DeleteFunc(groups, func(g InitiatorGroup) bool { return !strings.HasPrefix(g.Name, prefix) })
	slices.SortFunc(groups, func(a, b InitiatorGroup) int { return strings.Compare(a.Name, b.Name) })
	return groups, nil
}

// InitiatorGroup reads one group.
func (c *Client) InitiatorGroup(ctx context.Context, name string) (*InitiatorGroup, error) {
	return fetch[InitiatorGroup](ctx, c, get, at("initiator_groups", name), nil)
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
	return create(ctx, c, request{at: at("initiator_groups"), body: body}, func() (*InitiatorGroup, error) {
		return c.InitiatorGroup(ctx, name)
	})
}

// AddMember adds an initiator to a group and returns the group as it is then. It is no error when the
// initiator is a member already.
func (c *Client) AddMember(ctx context.Context, group, iqn string) (*InitiatorGroup, error) {
	return c.changeMembers(ctx, group, iqn, "add")
}

// RemoveMember takes an initiator from a group and returns the group as it is then. It is no error when the
// initiator is no member; a group that is not there is returned with no path and no members.
func (c *Client) RemoveMember(ctx context.Context, group, iqn string) (*InitiatorGroup, error) {
	return c.changeMembers(ctx, group, iqn, "remove")
}

func (c *Client) changeMembers(ctx context.Context, group, iqn, op string) (*InitiatorGroup, error) {
	member := at("initiators", iqn)
	if member.err != nil {
		return nil, member.err
	}
	done := func(g *InitiatorGroup) bool { return slices.Contains(g.Members, iqn) == (op == "add") }
	change := request{method: put, at: at("initiator_groups", group, "members"), body: operation{member.path, op}}
	body, err := c.do(ctx, change, nil)
	switch {
	case err == nil:
		if g := answeredGroup(body, group); g != nil && done(g) {
			return g, nil
		}
	case isRefusal(err), IsNotFound(err) && op == "remove": // perhaps because it is so already
	default:
		return nil, err
	}
	g, readErr := c.InitiatorGroup(ctx, group)
	switch {
	case IsNotFound(readErr) && op == "remove":
		return &InitiatorGroup{Name: group}, nil
	case readErr != nil:
		return nil, errors.Join(err, readErr)
	case err != nil && !done(g):
		return nil, err
	}
	return g, nil
}

// answeredGroup reads the answer to a change of members: the group, or the list of its members. Which of
// them an array sends is not documented; nil for anything else.
func answeredGroup(body []byte, name string) *InitiatorGroup {
	var data json.RawMessage
	if decode(body, &data) != nil {
		return nil
	}
	var w struct {
		Members []Reference `json:"members"`
	}
	if json.Unmarshal(data, &w.Members) != nil && (json.Unmarshal(data, &w) != nil || w.Members == nil) {
		return nil
	}
	return &InitiatorGroup{Path: "/initiator_groups/" + name, Name: name, Members: lastElements(w.Members)}
}

// DeleteInitiatorGroup deletes a group. It is no error when it is not there.
func (c *Client) DeleteInitiatorGroup(ctx context.Context, name string) error {
	err := c.call(ctx, remove, at("initiator_groups", name), nil, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}
