package dateratest

import "fmt"

// parts are the devices that every storage node has, by collection.
func parts() map[string][]entity {
	const gib = 1 << 30
	device := func(id string, more entity) entity {
		out := entity{"id": id, "slot_label": id, "health": "ok", "op_state": "active", "causes": []string{}}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	disk := func(id string, size int) entity { return device(id, entity{"size": size}) }
	return map[string][]entity{
		"hdds":          {disk("hdd_1", 4000*gib), disk("hdd_2", 4000*gib)},
		"flash_devices": {disk("flash_1", 800*gib)},
		"boot_drives":   {disk("boot_1", 100*gib)},
		"nics":          {device("nic_1", nil), device("nic_2", nil)},
	}
}

// partCollections in a fixed order.
func partCollections() []string { return sortedKeys(parts()) }

func (c *call) viewNode(id string) entity {
	at := "/storage_nodes/" + id
	admin := online
	if set, ok := c.cluster.Settings[at]["admin_state"].(string); ok {
		admin = set
	}
	state := map[string]string{online: "online", offline: "offline", "decommission": "decommissioned"}[admin]
	out := entity{"path": at, "uuid": id, "name": "node-" + id[:8], "health": "ok", "admin_state": admin, "op_state": state, "causes": []string{},
		"sw_version": c.options.SoftwareVersion, "build_version": c.options.SoftwareVersion + "-sim", "vendor": "Datera", "model": "sim",
		"serial_no": id[:8], "type": "hybrid", "sw_health": "ok", "hw_health": "ok", "hw_state": "ok", "sw_state": "ok", "disconnected": false,
		"total_capacity": totalCapacity / len(c.cluster.Nodes), "total_raw_capacity": totalCapacity / len(c.cluster.Nodes),
		"available_capacity": totalCapacity / len(c.cluster.Nodes), "compression_enabled": true, "compression_ratio": "1.0",
		"mgmt_ip_1": "127.0.0.1", "mgmt_ip_2": "127.0.0.1", "internal_ip_1": "172.16.0.1", "internal_ip_2": "172.16.0.2",
		"bios_version": "1.0", "os_version": "1.0", "subsystem_states": viewSubsystems(at), "volumes": []ref{}, "storage_instances": []ref{}}
	for _, collection := range partCollections() {
		out[collection] = viewParts(at, collection)
	}
	return out
}

func viewSubsystems(node string) entity {
	return entity{"path": node + "/subsystem_states", "network": "normal", "voltage": "normal", "temperature": "normal", "power": "normal", "fan": "normal",
		"causes": []string{}, "health": "ok"}
}

func viewParts(node, collection string) []entity {
	devices := parts()[collection]
	for _, d := range devices {
		d["path"] = fmt.Sprintf("%s/%s/%s", node, collection, d["id"])
	}
	return devices
}

// node is the storage node that the path of the call names.
func (c *call) node() (string, error) {
	for _, id := range c.cluster.Nodes {
		if id == c.variable("name") {
			return id, nil
		}
	}
	return "", notFound("/storage_nodes/" + c.variable("name"))
}

func listNodes(c *call) (any, error) {
	var items []entity
	for _, id := range c.cluster.Nodes {
		items = append(items, c.viewNode(id))
	}
	return c.page(items)
}

func readNode(c *call) (any, error) {
	id, err := c.node()
	if err != nil {
		return nil, err
	}
	return c.viewNode(id), nil
}

func updateNode(c *call) (any, error) {
	id, err := c.node()
	if err != nil {
		return nil, err
	}
	c.changeSetting("/storage_nodes/" + id)
	return c.viewNode(id), nil
}

func readSubsystems(c *call) (any, error) {
	id, err := c.node()
	if err != nil {
		return nil, err
	}
	return viewSubsystems("/storage_nodes/" + id), nil
}

func listParts(collection string) handler {
	return func(c *call) (any, error) {
		id, err := c.node()
		if err != nil {
			return nil, err
		}
		return c.page(viewParts("/storage_nodes/"+id, collection))
	}
}

func readPart(collection string) handler {
	return func(c *call) (any, error) {
		id, err := c.node()
		if err != nil {
			return nil, err
		}
		for _, d := range viewParts("/storage_nodes/"+id, collection) {
			if d["id"] == c.variable("part") {
				return d, nil
			}
		}
		return nil, notFound(c.path)
	}
}
