package datera

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// System is the cluster as a whole. Capacities are in bytes.
type System struct {
	Name                     string `json:"name"`
	UUID                     string `json:"uuid"`
	SoftwareVersion          string `json:"sw_version"` // of the product, four dotted integers
	Health                   string `json:"health"`
	OpState                  string `json:"op_state"`
	TotalCapacity            int64  `json:"total_capacity"`
	AvailableCapacity        int64  `json:"available_capacity"`
	TotalProvisionedCapacity int64  `json:"total_provisioned_capacity"`
}

// UnmarshalJSON tolerates numbers written as strings or floats.
func (s *System) UnmarshalJSON(b []byte) error {
	type plain System
	w := struct {
		*plain
		Total       number `json:"total_capacity"`
		Available   number `json:"available_capacity"`
		Provisioned number `json:"total_provisioned_capacity"`
	}{plain: (*plain)(s)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	s.TotalCapacity, s.AvailableCapacity, s.TotalProvisionedCapacity = int64(w.Total), int64(w.Available), int64(w.Provisioned)
	return nil
}

// System reads name, version, health and capacity of the cluster.
func (c *Client) System(ctx context.Context) (*System, error) {
	return fetch[System](ctx, c, get, at("system"), nil)
}

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
