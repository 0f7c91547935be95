package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// AppInstance reads an app instance by its name or ID.
func (c *Client) AppInstance(ctx context.Context, nameOrID string) (*AppInstance, error) {
	return fetch(ctx, c, request{at: at("app_instances", nameOrID)}, func(ai *AppInstance) error { return ai.is(nameOrID) })
}

// SetAdminState puts an app instance online or offline. With force it goes offline although initiators are
// logged in.
func (c *Client) SetAdminState(ctx context.Context, id, state string, force bool) (*AppInstance, error) {
	r := request{method: put, at: at("app_instances", id), body: adminState{state, force}}
	shows := func(ai *AppInstance) error {
		if ai.AdminState != state {
			return fmt.Errorf("app instance %s is %s, not %s", id, ai.AdminState, state)
		}
		return ai.is(id)
	}
	return change(ctx, c, r, shows, func() (*AppInstance, error) { return c.AppInstance(ctx, id) })
}

type adminState struct {
	AdminState string `json:"admin_state"`
	Force      bool   `json:"force,omitempty"`
}

// DeleteAppInstance deletes an app instance, which must be offline, with all its data. One that is not there is deleted.
func (c *Client) DeleteAppInstance(ctx context.Context, id string) error {
	err := c.call(ctx, remove, at("app_instances", id), map[string]bool{"force": true}, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// ResizeVolume sets the size of a volume, online or offline. The array only grows volumes, and may still be
// at it when the answer comes.
func (c *Client) ResizeVolume(ctx context.Context, volumePath string, sizeGiB int64) (*Volume, error) {
	r, resized := request{method: put, at: under(volumePath), body: map[string]int64{"size": sizeGiB}}, new(Volume)
	if _, err := c.do(ctx, r, resized); err != nil {
		return nil, err
	}
	if resized.Path != volumePath {
		return nil, c.unclear(r, fmt.Errorf("it is volume %q", printable(resized.Path, maxDetail)))
	}
	return resized, nil
}

// SetPerformancePolicy sets all limits of a volume.
func (c *Client) SetPerformancePolicy(ctx context.Context, volumePath string, p PerformancePolicy) error {
	policy := under(volumePath, "performance_policy")
	err := c.call(ctx, post, policy, p, nil)
	if IsConflict(err) || errors.Is(err, errLost) {
		return c.call(ctx, put, policy, p, nil)
	}
	return err
}

// Metadata reads the pairs that clients keep with an app instance. Booleans and numbers, which some store,
// become strings.
func (c *Client) Metadata(ctx context.Context, id string) (map[string]string, error) {
	var raw map[string]json.RawMessage
	if err := c.call(ctx, get, at("app_instances", id, "metadata"), nil, &raw); err != nil {
		return nil, err
	}
	pairs := make(map[string]string, len(raw))
	for key, value := range raw {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		pairs[key] = text
	}
	return pairs, nil
}

// SetMetadata adds to the metadata of an app instance; pairs that it does not name stay. All together may
// have 2048 bytes.
func (c *Client) SetMetadata(ctx context.Context, id string, pairs map[string]string) error {
	return c.call(ctx, put, at("app_instances", id, "metadata"), pairs, nil)
}
