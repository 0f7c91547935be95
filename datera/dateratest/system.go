package dateratest

import (
	"maps"
	"time"
)

// totalCapacity is what the cluster pretends to have: 100 TiB.
const totalCapacity = 100 << 40

func readSystem(c *call) (any, error) {
	provisioned, used := 0, 0
	for v := range c.cluster.volumes() {
		provisioned += v.sizeAt(c.at) * v.Replicas << 30
		used += c.capacityInUse(v) * v.Replicas << 30
	}
	out := entity{"path": "/system", "name": c.cluster.Name, "uuid": c.cluster.UUID, "sw_version": c.options.SoftwareVersion,
		"build_version": c.options.SoftwareVersion + "-sim", "health": "ok", "op_state": "running", "timezone": "UTC", "causes": []string{},
		"total_capacity": totalCapacity, "available_capacity": max(totalCapacity-used, 0), "total_provisioned_capacity": provisioned,
		"hybrid_total_capacity": totalCapacity, "hybrid_available_capacity": max(totalCapacity-used, 0),
		"hybrid_provisioned_capacity": provisioned, "all_flash_total_capacity": 0, "all_flash_available_capacity": 0,
		"all_flash_provisioned_capacity": 0, "compression_enabled": true, "compression_ratio": "1.0", "l3_enabled": false,
		"callhome_enabled": false, "uptime": 1000, "last_reboot_timestamp": "0", "network": c.viewNetwork(),
		"dns": c.viewSetting("/system/dns"), "http_proxy": c.viewSetting("/system/http_proxy")}
	maps.Copy(out, c.cluster.Settings["/system"])
	return out, nil
}

func updateSystem(c *call) (any, error) {
	c.changeSetting("/system")
	return readSystem(c)
}

func readTime(c *call) (any, error) {
	return entity{"path": "/time", "time": c.at.UTC().Format(time.RFC3339)}, nil
}

func readInitConfig(*call) (any, error) { return entity{"path": "/init/config"}, nil }

func readUpgrades(*call) (any, error) { return entity{"path": "/upgrade/available"}, nil }
