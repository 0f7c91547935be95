package dateratest

import (
	"maps"

	"github.com/google/uuid"
)

// standardSettings are what an administrator of a real cluster sets and this one only keeps, with their defaults.
func standardSettings() map[string]entity {
	return map[string]entity{
		"/system/dns":                      {"domain": ""},
		"/system/http_proxy":               {"enabled": false, "host": "", "port": 8080, "user": "", "password": "(hidden)"},
		"/system/snmp_policy":              {"location": "", "contact": "", "enabled": false, "users": []entity{}},
		"/monitoring/policies/default":     {"name": "default", "enabled": false, "destinations": []ref{{"/monitoring/destinations/default"}}},
		"/monitoring/destinations/default": {"name": "default", "type": "syslog", "host": "", "port": 514, "op_state": "init", "facility": "Local0"},
	}
}

func (c *call) viewSetting(path string) entity {
	out := entity{"path": path}
	for _, from := range []entity{standardSettings()[path], c.cluster.Settings[path]} {
		maps.Copy(out, from)
	}
	return out
}

// changeSetting keeps the members of the body, but no password.
func (c *call) changeSetting(path string) {
	next := maps.Clone(c.cluster.Settings[path])
	if next == nil {
		next = entity{}
	}
	maps.Copy(next, c.body)
	delete(next, "password")
	if c.cluster.Settings == nil {
		c.cluster.Settings = map[string]entity{}
	}
	c.cluster.Settings[path] = next
}

func readSetting(c *call) (any, error) { return c.viewSetting(c.path), nil }

func updateSetting(c *call) (any, error) {
	c.changeSetting(c.path)
	return c.viewSetting(c.path), nil
}

// A document is kept as its client made it: remote providers and storage pools, which volumes here do not use.
// Its collection is the first element of its path.

func viewDocument(collection, id string, d entity) entity {
	out := maps.Clone(d)
	out["path"], out["uuid"] = "/"+collection+"/"+id, id
	for _, hidden := range []string{"private_key", "access_key", "secret_key", "project_name"} {
		delete(out, hidden)
	}
	return out
}

func listDocuments(collection string) handler {
	return func(c *call) (any, error) {
		var items []entity
		for _, id := range sortedKeys(c.cluster.Documents[collection]) {
			items = append(items, viewDocument(collection, id, c.cluster.Documents[collection][id]))
		}
		return c.page(items)
	}
}

func (c *call) document(collection string) (string, entity, error) {
	id := c.variable("name")
	d, ok := c.cluster.Documents[collection][id]
	if !ok {
		return "", nil, notFound("/" + collection + "/" + id)
	}
	return id, d, nil
}

func createDocument(collection string, fixed func() entity) handler {
	return func(c *call) (any, error) {
		id := uuid.NewString()
		d := fixed()
		maps.Copy(d, c.body)
		if c.cluster.Documents == nil {
			c.cluster.Documents = map[string]map[string]entity{}
		}
		if c.cluster.Documents[collection] == nil {
			c.cluster.Documents[collection] = map[string]entity{}
		}
		c.cluster.Documents[collection][id] = d
		return viewDocument(collection, id, d), nil
	}
}

func readDocument(collection string) handler {
	return func(c *call) (any, error) {
		id, d, err := c.document(collection)
		if err != nil {
			return nil, err
		}
		return viewDocument(collection, id, d), nil
	}
}

func updateDocument(collection string) handler {
	return func(c *call) (any, error) {
		id, d, err := c.document(collection)
		if err != nil {
			return nil, err
		}
		maps.Copy(d, c.body)
		return viewDocument(collection, id, d), nil
	}
}

func deleteDocument(collection string) handler {
	return func(c *call) (any, error) {
		id, d, err := c.document(collection)
		if err != nil {
			return nil, err
		}
		delete(c.cluster.Documents[collection], id)
		return viewDocument(collection, id, d), nil
	}
}

// newRemote is what a remote provider has beside what its client says.
func newRemote() entity {
	return entity{"operations": []any{}, "snapshots": []any{}, "status": "ok", "last_seen_timestamp": "0"}
}

func newStoragePool() entity { return entity{"members": []any{}} }

func refreshRemote(c *call) (any, error) {
	id, _, err := c.document("remote_providers")
	if err != nil {
		return nil, err
	}
	return entity{"uuid": id}, nil
}

// changeOperation finds none: nothing is ever on its way to a remote provider.
func changeOperation(c *call) (any, error) { return nil, notFound(c.path) }
