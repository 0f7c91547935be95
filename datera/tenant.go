package datera

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// tenant is one element of the list of tenants. Old products nest subtenants, new ones list them all.
type tenant struct {
	Path       string   `json:"path"`
	Subtenants []tenant `json:"subtenants"`
}

// UnmarshalJSON takes a tenant or the bare path of one.
func (t *tenant) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &t.Path)
	}
	type plain tenant
	return json.Unmarshal(b, (*plain)(t))
}

// Tenants lists the paths of all tenants, sorted: "/root", "/root/x".
func (c *Client) Tenants(ctx context.Context) ([]string, error) {
	tenants, err := list[tenant](ctx, c, at("tenants"), "", 0)
	if err != nil {
		return nil, err
	}
	var paths []string
	for len(tenants) > 0 {
		t := tenants[0]
		paths = append(paths, strings.TrimPrefix(t.Path, "/tenants"))
		tenants = append(tenants[1:], t.Subtenants...)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}
