package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// ACL lists who may log in to a target whose access control mode is deny_all. A list is nil when the array does not show it:
// that is not an empty one.
type ACL struct {
	Initiators      []Reference `json:"initiators"`
	InitiatorGroups []Reference `json:"initiator_groups"`
}

// UnmarshalJSON makes sure that what is listed is what it is listed as.
func (a *ACL) UnmarshalJSON(b []byte) error {
	type plain ACL
	if err := json.Unmarshal(b, (*plain)(a)); err != nil {
		return err
	}
	err := errors.Join(allWithin("initiators", a.Initiators), allWithin("initiator_groups", a.InitiatorGroups))
	if err != nil {
		return fmt.Errorf("ACL policy: %w", err)
	}
	return nil
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
	auth := under(storageInstancePath, "auth")
	shows := func(there *Auth) error {
		if there.Type != body.Type || there.TargetUserName != body.TargetUserName || there.InitiatorUserName != body.InitiatorUserName {
			return fmt.Errorf("the authentication of %s is %q with the users %q and %q, not %q with %q and %q", storageInstancePath,
				there.Type, there.TargetUserName, there.InitiatorUserName, body.Type, body.TargetUserName, body.InitiatorUserName)
		}
		return nil
	}
	_, err = change(ctx, c, request{method: put, at: auth, body: body, secrets: a.secrets()}, shows, func() (*Auth, error) {
		return fetch(ctx, c, request{at: auth, secrets: a.secrets()}, func(*Auth) error { return nil })
	})
	return err
}

// operation changes one element of a list on the array, which leaves the others alone, whichever client changes those.
type operation struct {
	Path string `json:"path"`
	Op   string `json:"op"` // add or remove
}

// AddInitiatorGroup lets the members of a group log in to a target. It is not an error when they may already. What the array
// answers does not show the ACL: the caller reads it.
func (c *Client) AddInitiatorGroup(ctx context.Context, storageInstancePath, group string) error {
	r, err := changeOfACL(storageInstancePath, group, "add")
	if err != nil {
		return err
	}
	err = c.call(ctx, r.method, r.at, r.body, nil)
	if !isRefusal(err) {
		return err
	}
	there, readErr := c.acl(ctx, storageInstancePath)
	if readErr == nil && there.RefersTo(group) {
		return nil
	}
	return errors.Join(err, readErr)
}

// RemoveInitiatorGroup keeps the members of a group out of a target again, unless another of its groups or its initiators
// lets them in. It is not an error when the ACL does not name the group, or the target is not there.
func (c *Client) RemoveInitiatorGroup(ctx context.Context, storageInstancePath, group string) error {
	r, err := changeOfACL(storageInstancePath, group, "remove")
	if err != nil {
		return err
	}
	shows := func(a *ACL) error {
		switch {
		case a.InitiatorGroups == nil:
			return fmt.Errorf("the ACL policy of %s does not show its initiator groups", storageInstancePath)
		case a.RefersTo(group):
			return fmt.Errorf("the ACL policy of %s still names initiator group %s: remove it there by hand", storageInstancePath, group)
		}
		return nil
	}
	_, err = change(ctx, c, r, shows, func() (*ACL, error) {
		there, err := c.acl(ctx, storageInstancePath)
		if IsNotFound(err) {
			return &ACL{InitiatorGroups: []Reference{}}, nil
		}
		return there, err
	})
	return err
}

func changeOfACL(storageInstancePath, group, op string) (request, error) {
	item := at("initiator_groups", group)
	return request{method: put, at: under(storageInstancePath, "acl_policy", "initiator_groups"), body: operation{item.path, op}}, item.err
}

func (c *Client) acl(ctx context.Context, storageInstancePath string) (*ACL, error) {
	return fetch(ctx, c, request{at: under(storageInstancePath, "acl_policy")}, func(*ACL) error { return nil })
}
