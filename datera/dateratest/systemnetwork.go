package dateratest

import (
	"fmt"
	"maps"
)

// network is a group of the cluster's addresses as /system/network shows it.
type network struct {
	name  string
	paths []entity
}

func networkNames() []string { return []string{"access_vip", "mgmt_vip", "internal_network"} }

// networks are the groups, in a fixed order: where volumes are reached, where the API is, and what connects the nodes.
func (c *call) networks() []network {
	var access []entity
	for i, p := range c.options.Portals {
		access = append(access, entity{"name": fmt.Sprintf("access_%d", i+1), "ip": p.Addr().String(), "netmask": 24, "vlan": 0, "gateway": "", "mtu": 1500})
	}
	all := []network{
		{"access_vip", access},
		{"mgmt_vip", []entity{{"name": "mgmt_1", "ip": "127.0.0.1", "netmask": 24, "vlan": 0, "gateway": "", "mtu": 1500}}},
		{"internal_network", []entity{{"name": "internal_1", "start_ip": "172.16.0.1", "range": 16, "netmask": 24, "vlan": 0, "gateway": "", "mtu": 1500}}},
	}
	for _, n := range all {
		for _, p := range n.paths {
			at := fmt.Sprintf("/system/network/%s/network_paths/%s", n.name, p["name"])
			p["path"] = at
			maps.Copy(p, c.cluster.Settings[at])
		}
	}
	return all
}

func (n network) view() entity {
	return entity{"path": "/system/network/" + n.name, "name": n.name, "network_paths": n.paths}
}

func (c *call) viewMapping() entity {
	return entity{"path": "/system/network/mapping", "access_1": "net_1", "access_2": "net_2", "internal_1": "net_3", "internal_2": "net_4",
		"mgmt_1": "net_5", "mgmt_2": "net_6"}
}

func (c *call) viewNetwork() entity {
	out := entity{"path": "/system/network", "mapping": c.viewMapping(), "access_networks": []string{}}
	for _, n := range c.networks() {
		out[n.name] = n.view()
	}
	return out
}

func readNetwork(c *call) (any, error) { return c.viewNetwork(), nil }

func readMapping(c *call) (any, error) { return c.viewMapping(), nil }

// onNetwork runs a handler for one of the groups.
func onNetwork(name string, handle func(*call, network) (any, error)) handler {
	return func(c *call) (any, error) {
		for _, n := range c.networks() {
			if n.name == name {
				return handle(c, n)
			}
		}
		return nil, notFound(c.path)
	}
}

func readVIP(_ *call, n network) (any, error)      { return n.view(), nil }
func listVIPPaths(c *call, n network) (any, error) { return c.page(n.paths) }

func readVIPPath(c *call, n network) (any, error) {
	for _, p := range n.paths {
		if p["name"] == c.variable("name") {
			return p, nil
		}
	}
	return nil, notFound(c.path)
}

func updateVIPPath(c *call, n network) (any, error) {
	if _, err := readVIPPath(c, n); err != nil {
		return nil, err
	}
	c.changeSetting(c.path)
	return onNetwork(n.name, readVIPPath)(c)
}
