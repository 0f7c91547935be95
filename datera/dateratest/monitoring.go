package dateratest

import "slices"

// listMetrics answers one series for each thing that is asked for. Nothing is measured: all values are 0.
func listMetrics(known []string, hardware bool) handler {
	return func(c *call) (any, error) {
		if !slices.Contains(known, c.variable("metric")) {
			return nil, notFound(c.path)
		}
		points := []entity{{"time": c.at.Unix(), "value": 0.0}}
		var items []entity
		for _, p := range c.measured(c.query.Get("path"), hardware) {
			items = append(items, entity{"entity_path": p, "tenant": c.tenant.Path, "points": points})
		}
		return c.page(items)
	}
}

// measured are the paths that a path in the query of a metric stands for.
func (c *call) measured(asked string, hardware bool) []string {
	var all []string
	switch {
	case hardware && (asked == "" || asked == "/storage_nodes"):
		for _, id := range c.cluster.Nodes {
			all = append(all, "/storage_nodes/"+id)
		}
	case asked == "" || asked == "/app_instances":
		for _, id := range sortedKeys(c.tenant.AppInstances) {
			all = append(all, c.tenant.AppInstances[id].path())
		}
	default:
		all = []string{asked}
	}
	return all
}
