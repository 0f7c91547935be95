package dateratest

import (
	"fmt"
	"slices"
)

func (n networkPath) view(pool string) entity {
	return entity{"path": pool + "/network_paths/" + n.Name, "name": n.Name, "start_ip": n.StartIP, "range": n.Range, "netmask": n.Netmask,
		"vlan": n.VLAN, "mtu": n.MTU, "gateway": n.Gateway}
}

func viewPool(_ *call, p *ipPool, _ string) entity {
	at := "/access_network_ip_pools/" + p.Name
	paths := make([]entity, 0, len(p.Paths))
	for _, n := range p.Paths {
		paths = append(paths, n.view(at))
	}
	return entity{"path": at, "name": p.Name, "descr": p.Descr, "network_paths": paths}
}

func listPools(c *call) (any, error) { return listOf(c, pools, viewPool) }
func readPool(c *call) (any, error)  { return read(c, "/access_network_ip_pools", pools, viewPool) }

func deletePool(c *call) (any, error) {
	if c.variable("name") == "default" {
		return nil, refused("the default ip pool cannot be deleted")
	}
	return remove(c, "/access_network_ip_pools", pools, viewPool)
}

type poolInput struct {
	Name  string         `json:"name"`
	Descr *string        `json:"descr"`
	Paths *[]networkPath `json:"network_paths"`
}

func (in *poolInput) apply(p *ipPool) {
	if in.Descr != nil {
		p.Descr = *in.Descr
	}
	if in.Paths != nil {
		p.Paths = *in.Paths
		for i := range p.Paths {
			if p.Paths[i].MTU == 0 {
				p.Paths[i].MTU = 1500
			}
			setDefault(&p.Paths[i].Name, fmt.Sprintf("access_%d", i+1))
		}
	}
}

func createPool(c *call) (any, error) {
	var in poolInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if _, exists := c.tenant.Pools[in.Name]; exists {
		return nil, conflict("ip pool %s exists already", in.Name)
	}
	p := &ipPool{Name: in.Name}
	in.apply(p)
	c.tenant.Pools[in.Name] = p
	return viewPool(c, p, c.tenant.Path), nil
}

func updatePool(c *call) (any, error) {
	p, err := own(c, "/access_network_ip_pools", c.variable("name"), pools)
	if err != nil {
		return nil, err
	}
	var in poolInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	in.apply(p)
	return viewPool(c, p, c.tenant.Path), nil
}

func (c *call) networkPaths() (string, []networkPath, error) {
	name := c.variable("name")
	p, _, ok := inherited(c.cluster, c.tenant.Path, name, pools)
	if !ok {
		return "", nil, notFound("/access_network_ip_pools/" + name)
	}
	return "/access_network_ip_pools/" + name, p.Paths, nil
}

func listNetworkPaths(c *call) (any, error) {
	at, paths, err := c.networkPaths()
	if err != nil {
		return nil, err
	}
	var items []entity
	for _, n := range paths {
		items = append(items, n.view(at))
	}
	return c.page(items)
}

func updateNetworkPath(c *call) (any, error) {
	p, err := own(c, "/access_network_ip_pools", c.variable("name"), pools)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(p.Paths, func(n networkPath) bool { return n.Name == c.variable("path") })
	if i < 0 {
		return nil, notFound(c.path)
	}
	if err := c.bind(&p.Paths[i]); err != nil {
		return nil, err
	}
	return p.Paths[i].view("/access_network_ip_pools/" + p.Name), nil
}

func readNetworkPath(c *call) (any, error) {
	at, paths, err := c.networkPaths()
	if err != nil {
		return nil, err
	}
	for _, n := range paths {
		if n.Name == c.variable("path") {
			return n.view(at), nil
		}
	}
	return nil, notFound(at + "/network_paths/" + c.variable("path"))
}

// takeAddresses gives a storage instance one address of each network of a pool.
func (c *call) takeAddresses(si *storageInstance, pool string) error {
	p, _, ok := follow(c, "/access_network_ip_pools", pool, pools)
	if !ok {
		return notFound(pool)
	}
	si.IPs, si.Port = p.addresses()
	return nil
}
