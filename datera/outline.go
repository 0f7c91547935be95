package datera

import "context"

// AppInstanceOutlines lists all app instances of the tenant: their names, IDs and descriptions, and of their targets paths, ACLs,
// access control and who has a session. For people's questions: no other way leads from a host to what it may reach, and this one
// reads everything.
func (c *Client) AppInstanceOutlines(ctx context.Context) ([]AppInstance, error) {
	// No more than is needed is understood: one that is unlike all others must not be in the way.
	type outline struct {
		Name             string `json:"name"`
		ID               string `json:"id"`
		Descr            string `json:"descr"`
		StorageInstances []struct {
			Path              string   `json:"path"`
			AccessControlMode string   `json:"access_control_mode"`
			ACL               ACL      `json:"acl_policy"`
			ActiveInitiators  []string `json:"active_initiators"`
		} `json:"storage_instances"`
	}
	all, err := whole[outline](ctx, c, "app_instances")
	if err != nil {
		return nil, err
	}
	instances := make([]AppInstance, 0, len(all))
	for _, o := range all {
		ai := AppInstance{Name: o.Name, ID: o.ID, Descr: o.Descr}
		for _, instance := range o.StorageInstances {
			ai.StorageInstances = append(ai.StorageInstances, StorageInstance{
				Path: instance.Path, AccessControlMode: instance.AccessControlMode, ACL: instance.ACL, ActiveInitiators: instance.ActiveInitiators,
			})
		}
		instances = append(instances, ai)
	}
	return instances, nil
}

// Initiators lists the tenant's initiators, and those that it inherits.
func (c *Client) Initiators(ctx context.Context) ([]Initiator, error) {
	return whole[Initiator](ctx, c, "initiators")
}

// whole lists all of a collection.
func whole[T any](ctx context.Context, c *Client, collection string) ([]T, error) {
	all := listing{collection: collection}
	elements, err := c.list(ctx, all)
	if err != nil {
		return nil, err
	}
	return understood[T](c, all, elements)
}
