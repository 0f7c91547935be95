package dateratest

import (
	"net/http"
	"strings"
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
	return entity{"path": "/system", "name": c.cluster.Name, "uuid": c.cluster.UUID, "sw_version": c.options.SoftwareVersion,
		"build_version": c.options.SoftwareVersion + "-sim", "health": "ok", "op_state": "running", "timezone": "UTC", "causes": []string{},
		"total_capacity": totalCapacity, "available_capacity": max(totalCapacity-used, 0), "total_provisioned_capacity": provisioned,
		"hybrid_total_capacity": totalCapacity, "hybrid_available_capacity": max(totalCapacity-used, 0),
		"hybrid_provisioned_capacity": provisioned, "all_flash_total_capacity": 0, "all_flash_available_capacity": 0,
		"all_flash_provisioned_capacity": 0, "compression_enabled": true, "compression_ratio": "1.0", "l3_enabled": false,
		"callhome_enabled": false, "uptime": 1000, "last_reboot_timestamp": "0"}, nil
}

func viewNode(id string) entity {
	return entity{"path": "/storage_nodes/" + id, "uuid": id, "name": "node-" + id[:8], "health": "ok", "op_state": "available",
		"admin_state": online, "causes": []string{}}
}

func listNodes(c *call) (any, error) {
	var items []entity
	for _, id := range c.cluster.Nodes {
		items = append(items, viewNode(id))
	}
	return c.page(items)
}

func readNode(c *call) (any, error) {
	for _, id := range c.cluster.Nodes {
		if id == c.variable("name") {
			return viewNode(id), nil
		}
	}
	return nil, notFound("/storage_nodes/" + c.variable("name"))
}

func readTime(c *call) (any, error) {
	return entity{"path": "/time", "time": c.at.UTC().Format(time.RFC3339)}, nil
}

func readInitConfig(*call) (any, error) { return entity{"path": "/init/config"}, nil }

// readAPI describes the routes, from the very table and descriptions that requests are judged by.
func readAPI(c *call) (any, error) {
	verbs := map[string]string{http.MethodPost: "create", http.MethodGet: "read", http.MethodPut: "update", http.MethodDelete: "delete"}
	described := bodies()
	out := bare{}
	for _, r := range table() {
		method, pattern, _ := strings.Cut(r.pattern, " ")
		name := schemaPath(pattern)
		routes, _ := out[name].(entity)
		if routes == nil {
			routes = entity{}
			out[name] = routes
		}
		verb := entity{"urlParamSchema": entity{}, "returnParamSchema": entity{}, "minVersion": "v2.1", "group": "", "descr": ""}
		if r.body != "" {
			verb["bodyParamSchema"] = described[r.body].schema(c.dialect)
		}
		routes[verbs[method]] = verb
	}
	for _, metrics := range []string{"/metrics/io/:metric", "/metrics/hw/:metric"} { // the vendor's Python client wants the enum
		out[metrics] = entity{"read": entity{"urlParamSchema": entity{"properties": entity{"metric": entity{"enum": []string{"reads", "writes"}}}}}}
	}
	return out, nil
}

// schemaPath writes /app_instances/{ai} as the schema does, /app_instances/:id.
func schemaPath(pattern string) string {
	return strings.NewReplacer("{ai}", ":id", "{", ":", "...}", "", "}", "").Replace(pattern)
}
