package datera

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// ErrRefused: replaced by the client branch.
var ErrRefused = errors.New("refused")

func (c *Client) InitiatorGroupsContaining(ctx context.Context, part string) ([]InitiatorGroup, error) {
	groups, err := list[InitiatorGroup](ctx, c, at("initiator_groups"), "", 0)
	return slices.DeleteFunc(groups, func(g InitiatorGroup) bool { return !strings.Contains(g.Name, part) }), err
}

func (c *Client) InitiatorGroupsOfAllTenants(ctx context.Context, part string) ([]InitiatorGroup, error) {
	return nil, ErrRefused
}
