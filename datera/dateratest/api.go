package dateratest

import (
	"net/http"
	"slices"
	"strings"
)

// What is measured, by kind, as a real cluster names it.
func ioMetrics() []string {
	return []string{"reads", "writes", "bytes_read", "bytes_written", "iops_read", "iops_write", "thpt_read", "thpt_write",
		"lat_avg_read", "lat_avg_write", "lat_50_read", "lat_90_read", "lat_100_read", "lat_50_write", "lat_90_write", "lat_100_write"}
}

func hwMetrics() []string { return []string{"cpu_usage"} }

// readAPI describes the routes, from the very table and descriptions that requests are judged by.
func readAPI(c *call) (any, error) {
	verbs := map[string]string{http.MethodPost: "create", http.MethodGet: "read", http.MethodPut: "update", http.MethodDelete: "delete"}
	described := bodies()
	out := bare{}
	for _, r := range table() {
		method, pattern, _ := strings.Cut(r.pattern, " ")
		if pattern == rootTenant || strings.HasPrefix(pattern, rootTenant+"/") {
			continue // a tenant's own path is a URL, but no cluster says so
		}
		name, variables := schemaPath(pattern)
		routes, _ := out[name].(entity)
		if routes == nil {
			routes = entity{}
			out[name] = routes
		}
		verb := entity{"op": verbs[method], "path": name, "urlParamSchema": variables, "minVersion": "1.0.0.0", "group": "", "descr": "",
			"bodyParamSchema":   object(nil).schema(c.dialect),
			"returnParamSchema": entity{"type": "object", "additionalProperties": true, "properties": entity{}}}
		if r.body != "" {
			verb["bodyParamSchema"] = described[r.body].schema(c.dialect)
		}
		routes[verbs[method]] = verb
	}
	return out, nil
}

// tenantPattern is how a real cluster writes the only variable with slashes in it.
const tenantPattern = ":tenant_path(((?:[A-Za-z0-9_-])+(?:/[.A-Za-z0-9_-]+){0,}$))"

// variableNames are a real cluster's names for what follows a collection in a path.
func variableNames() map[string]string {
	return map[string]string{"app_instances": "id", "storage_instances": "storage_instance_name", "volumes": "volume_name",
		"snapshots": "timestamp", "snapshot_policies": "snapshot_policy_name", "access_network_ip_pools": "pool_name",
		"network_paths": "path_name", "initiators": "id", "storage_templates": "storage_template_name",
		"volume_templates": "volume_template_name", "users": "user_id", "roles": "role_id", "storage_nodes": "uuid", "io": "metric",
		"hw": "metric", "hdds": "id", "nics": "id", "flash_devices": "id", "boot_drives": "id"}
}

// schemaPath writes /app_instances/{ai} as the schema does, /app_instances/:id, and describes the variables.
func schemaPath(pattern string) (path string, variables entity) {
	variables = entity{}
	steps := strings.Split(pattern, "/")
	for i, step := range steps {
		inner, isVariable := strings.CutPrefix(step, "{")
		if !isVariable {
			continue
		}
		if strings.HasSuffix(inner, "...}") {
			steps[i] = tenantPattern
			variables["tenant_path"] = entity{"type": "string"}
			continue
		}
		name := firstOf(variableNames()[steps[i-1]], "name")
		steps[i] = ":" + name
		variables[name] = variable(pattern, steps[i-1])
	}
	return strings.Join(steps, "/"), variables
}

// variable describes the values that a variable of a path takes. The vendor's Python client reads the metrics' enum.
func variable(route, collection string) entity {
	switch {
	case collection == "io" && strings.HasPrefix(route, "/metrics/"):
		return entity{"enum": ioMetrics()}
	case collection == "hw" && strings.HasPrefix(route, "/metrics/"):
		return entity{"enum": hwMetrics()}
	case slices.Contains([]string{"app_instances", "storage_nodes"}, collection):
		return pattern(lowerUUID).schema(dialect{})
	}
	return entity{"type": "string"}
}
