package datera

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// tenant is one element of the list of tenants. Old products nest subtenants, new ones list them all.
type tenant struct {
	Path       string
	Subtenants []json.RawMessage
}

// UnmarshalJSON takes a tenant or the bare path of one.
func (t *tenant) UnmarshalJSON(b []byte) error {
	var w struct {
		Path       string            `json:"path"`
		Name       string            `json:"name"`
		Subtenants []json.RawMessage `json:"subtenants"`
	}
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &w.Path); err != nil {
			return err
		}
	} else if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*t = tenant{strings.TrimPrefix(w.Path, "/tenants"), w.Subtenants}
	if !isTenant(t.Path) {
		return fmt.Errorf("%q is not the path of a tenant", printable(w.Path, maxDetail))
	}
	if w.Name != "" && w.Name != path.Base(t.Path) {
		return fmt.Errorf("tenant %s has the name %q", t.Path, printable(w.Name, maxName))
	}
	return nil
}

// Tenants lists the paths of all tenants that the user may see, sorted: "/root", "/root/x"; errors.Is(err, ErrRefused) when
// he may not list them.
func (c *Client) Tenants(ctx context.Context) ([]string, error) {
	l := listing{collection: "tenants"}
	elements, err := c.list(ctx, l)
	if err != nil {
		return nil, err
	}
	var paths []string
	for len(elements) > 0 {
		tenants, err := understood[tenant](c, l, elements)
		if err != nil {
			return nil, err
		}
		elements = nil
		for _, t := range tenants {
			paths = append(paths, t.Path)
			elements = append(elements, t.below()...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// below are the subtenants, whose bare names are made paths.
func (t tenant) below() []json.RawMessage {
	var below []json.RawMessage
	for _, raw := range t.Subtenants {
		var name string
		if json.Unmarshal(raw, &name) == nil && name != "" && !strings.HasPrefix(name, "/") {
			raw, _ = json.Marshal(t.Path + "/" + name)
		}
		below = append(below, raw)
	}
	return below
}

var tenantPattern = regexp.MustCompile(`^/root(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})*$`)

// isTenant knows the path of a tenant, whose name may be a UUID.
func isTenant(path string) bool { return tenantPattern.MatchString(path) }
