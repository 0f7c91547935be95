package datera

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Initiator is a host as the array knows it.
type Initiator struct {
	Path   string `json:"path"`
	ID     string `json:"id"` // the IQN
	Name   string `json:"name"`
	Tenant string `json:"tenant"` // where it is registered: the client's tenant, or a parent that it is inherited from
}

// UnmarshalJSON takes the IQN from the path when the array gives no id, and the reverse.
func (i *Initiator) UnmarshalJSON(b []byte) error {
	type plain Initiator
	if err := json.Unmarshal(b, (*plain)(i)); err != nil {
		return err
	}
	i.Path = cmp.Or(i.Path, "/initiators/"+i.ID)
	itself := Reference{Path: i.Path}
	i.ID = cmp.Or(i.ID, itself.last())
	if err := allWithin("initiators", []Reference{itself}); err != nil {
		return err
	}
	switch {
	case !SameIQN(i.ID, itself.last()):
		return fmt.Errorf("initiator %s has the id %q", printable(i.Path, maxDetail), printable(i.ID, maxDetail))
	case i.Name == "":
		return fmt.Errorf("initiator %s does not say its name", i.ID)
	}
	return nil
}

// is says whether an initiator is the one with this IQN.
func (i *Initiator) is(iqn string) error {
	if !SameIQN(i.ID, iqn) {
		return fmt.Errorf("it is initiator %s, not %s", i.ID, iqn)
	}
	return nil
}

// InitiatorNameError is an initiator that is registered under another name than the one asked for.
type InitiatorNameError struct {
	IQN, Tenant string
	Have, Want  string
}

func (e *InitiatorNameError) Error() string {
	return fmt.Sprintf("initiator %s is registered in tenant %s of the array as %q, not as %q: two hosts have the same IQN, or rename it on the array",
		e.IQN, e.Tenant, e.Have, e.Want)
}

// SharedNameError is a name that several initiators have: it tells none of them.
type SharedNameError struct {
	Server, Name string
	IQNs         []string
}

func (e *SharedNameError) Error() string {
	return fmt.Sprintf("initiators %s of %s have the same name %q: rename or delete all but one on the array", strings.Join(e.IQNs, " and "), e.Server, e.Name)
}

// Initiator reads the initiator with this IQN, of the tenant or inherited from a parent.
func (c *Client) Initiator(ctx context.Context, iqn string) (*Initiator, error) {
	return fetch(ctx, c, request{at: at("initiators", iqn)}, func(i *Initiator) error { return i.is(iqn) })
}

// InitiatorByName finds an initiator by its name; errors.Is(err, ErrNotFound) when there is none, a
// *SharedNameError when there are several. The tenant's own come before those inherited from a parent.
func (c *Client) InitiatorByName(ctx context.Context, name string) (*Initiator, error) {
	if err := checkInitiatorName(name); err != nil {
		return nil, err
	}
	found, err := c.initiatorsNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	inherited := func(i Initiator) bool { return i.Tenant != c.tenant }
	if own := slices.DeleteFunc(slices.Clone(found), inherited); len(own) > 0 {
		found = own
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("initiator named %q in tenant %s of %s: %w", name, c.tenant, c.server, ErrNotFound)
	case 1:
		return &found[0], nil
	}
	shared := &SharedNameError{Server: c.server, Name: name}
	for _, i := range found {
		shared.IQNs = append(shared.IQNs, i.ID)
	}
	return nil, shared
}

// initiatorsNamed asks by a filter. That there is none is said by the whole list alone: an array may read a filter in another
// way, and a node that is taken for unknown keeps its access to volumes.
func (c *Client) initiatorsNamed(ctx context.Context, name string) ([]Initiator, error) {
	l := listing{collection: "initiators"}
	elements, ok, err := c.filtered(ctx, l, name, initiatorName)
	if err != nil {
		return nil, err
	}
	found, err := c.exactly(l, elements, name)
	if ok && len(found) > 0 || err != nil {
		return found, err
	}
	if elements, err = c.unfiltered(ctx, l, name, initiatorName); err != nil {
		return nil, err
	}
	return c.exactly(l, elements, name)
}

func (c *Client) exactly(l listing, elements []json.RawMessage, name string) ([]Initiator, error) {
	called := slices.DeleteFunc(slices.Clone(elements), func(element json.RawMessage) bool {
		its, err := initiatorName(element)
		return err == nil && its != name
	})
	return understood[Initiator](c, l, called)
}

// initiatorName is the name of an element of a list of initiators.
func initiatorName(element json.RawMessage) (string, error) {
	var w struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(element, &w); err != nil {
		return "", err
	}
	if w.Name == "" {
		return "", fmt.Errorf("an initiator does not say its name: %s", printable(string(element), maxDetail))
	}
	return w.Name, nil
}

// RegisterInitiator makes an IQN known under a name. It is not an error when it is already, in the tenant or
// in a parent; when it has another name, the error is an *InitiatorNameError.
func (c *Client) RegisterInitiator(ctx context.Context, iqn, name string) (*Initiator, error) {
	if err := checkInitiatorName(name); err != nil {
		return nil, err
	}
	read := func() (*Initiator, error) { return c.Initiator(ctx, iqn) }
	if err := at("initiators", iqn).err; err != nil {
		return nil, err
	}
	body := map[string]any{"id": iqn, "name": name}
	asked := func(i *Initiator) error {
		if i.Name != name {
			return fmt.Errorf("initiator %s has the name %q, not %q", i.ID, i.Name, name)
		}
		return i.is(iqn)
	}
	i, created, err := create(ctx, c, request{at: at("initiators"), body: body}, asked, read)
	if isInherited(err) {
		i, err = read()
		if err == nil && i.Name != name && c.minor >= 2 { // 2.1 knows no force
			body["force"] = true
			i, created, err = create(ctx, c, request{at: at("initiators"), body: body}, asked, read)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case !created && i.Name != name:
		return nil, &InitiatorNameError{IQN: iqn, Tenant: i.Tenant, Have: i.Name, Want: name}
	}
	return i, nil
}

// DeleteInitiator makes the array forget an initiator. It is not an error when it is not there. The array refuses
// while an initiator group or an ACL policy holds it.
func (c *Client) DeleteInitiator(ctx context.Context, iqn string) error {
	err := c.call(ctx, remove, at("initiators", iqn), nil, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// isInherited recognises the warning that a parent tenant has the initiator already (dbmp, src/dbmp/mount.py).
func isInherited(err error) bool {
	var e *APIError
	return errors.As(err, &e) && e.Status == http.StatusBadRequest && strings.Contains(e.Error(), "override this warning")
}

// checkInitiatorName knows the array's rule for names of initiators (schema of the v2.1 product).
func checkInitiatorName(name string) error {
	if ok, _ := regexp.MatchString(`^[A-Za-z_][A-Za-z0-9_. -]{2,127}$`, name); !ok {
		return fmt.Errorf("the array cannot have an initiator named %q: it takes 3 to 128 of letters, digits, _, -, . and space, the first a letter or _", printable(name, 150))
	}
	return nil
}
