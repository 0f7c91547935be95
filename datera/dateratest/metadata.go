package dateratest

import (
	"encoding/json"
	"maps"
)

// maxMetadata is what all metadata of one app instance may take, as JSON text.
const maxMetadata = 2048

// merge adds the body's members to what is stored. Nothing is ever removed: clients store "" instead.
func merge(into *map[string]any, add map[string]any) error {
	next := entity{}
	for _, from := range []map[string]any{*into, add} {
		for k, v := range from {
			next[k] = v
		}
	}
	text, err := json.Marshal(next)
	if err != nil {
		return internal(err)
	}
	if len(text) > maxMetadata {
		return refused("metadata would take %d bytes, more than %d", len(text), maxMetadata)
	}
	*into = next
	return nil
}

// metadataAnswer is the map and nothing else, so it may have a member "path" of the client's own.
type metadataAnswer map[string]any

func readMetadata(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	return metadataAnswer(ai.Metadata), nil
}

func updateMetadata(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	if err := merge(&ai.Metadata, c.body); err != nil {
		return nil, err
	}
	return metadataAnswer(ai.Metadata), nil
}

func readStorageMetadata(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return metadataAnswer(si.Metadata), nil
}

func updateStorageMetadata(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	if err := merge(&si.Metadata, c.body); err != nil {
		return nil, err
	}
	return metadataAnswer(si.Metadata), nil
}

func viewEcosystemData(ai *appInstance) entity {
	return entity{"name": ai.Name, "data": ai.Metadata}
}

func readEcosystemData(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	return viewEcosystemData(ai), nil
}

func updateEcosystemData(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	data, _ := c.body["data"].(entity)
	if err := merge(&ai.Metadata, data); err != nil {
		return nil, err
	}
	return viewEcosystemData(ai), nil
}

func listEcosystemData(c *call) (any, error) {
	var items []entity
	for _, one := range c.scope() {
		for ai := range maps.Values(one.tenant.AppInstances) {
			items = append(items, viewEcosystemData(ai))
			items[len(items)-1]["tenant"] = one.tenant.Path
		}
	}
	if err := sortBy(items, "name"); err != nil {
		return nil, err
	}
	return c.page(items)
}
