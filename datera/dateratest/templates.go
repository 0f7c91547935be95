package dateratest

import (
	"encoding/json"
	"slices"
	"strconv"
)

type appTemplate struct {
	Name             string            `json:"name"`
	Descr            string            `json:"descr"`
	SnapshotPolicies []snapshotPolicy  `json:"snapshot_policies"`
	Storage          []storageTemplate `json:"storage_templates"`
}

type storageTemplate struct {
	Name    string        `json:"name"`
	Auth    *authInput    `json:"auth,omitempty"`
	Pool    *templatePool `json:"ip_pool,omitempty"`
	Service string        `json:"service_configuration,omitempty"`
	Volumes []volumeInput `json:"volume_templates"`
}

// templatePool is a pool as templates name it: by a string on v2.1, by a reference later. Both are taken.
type templatePool struct{ ref }

func (p *templatePool) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, &p.Path)
	}
	return json.Unmarshal(text, &p.ref)
}

func (t *appTemplate) path() string { return "/app_templates/" + t.Name }

// templateOverride changes sizes of a template's volumes: by storage template name, by volume template name.
// The sizes are strings, as the vendor's drivers send them.
type templateOverride struct {
	Storage map[string]struct {
		Volumes map[string]struct {
			Size string `json:"size"`
		} `json:"volumes"`
	} `json:"storage_instances"`
}

func basicTemplate(name string, size int) *appTemplate {
	return &appTemplate{Name: name, Storage: []storageTemplate{{Name: "storage-1", Volumes: []volumeInput{
		{Name: "volume-1", Size: size, Replicas: 3, PlacementMode: "hybrid"}}}}}
}

// layOutTemplate gives a new app instance the layout of a template.
func (c *call) layOutTemplate(ai *appInstance, in appInstanceInput) error {
	t, _, ok := follow(c, "/app_templates", in.Template.Path, templates)
	if !ok {
		return notFound(in.Template.Path)
	}
	if err := in.Override.check(t); err != nil {
		return err
	}
	for _, s := range t.Storage {
		storage := storageInstanceInput{Name: s.Name, Auth: s.Auth, Service: s.Service}
		if s.Pool != nil {
			storage.Pool = &s.Pool.ref
		}
		for _, v := range s.Volumes {
			v.SnapshotPolicies = slices.Clone(v.SnapshotPolicies)
			if size := in.Override.Storage[s.Name].Volumes[v.Name].Size; size != "" {
				v.Size, _ = strconv.Atoi(size) // the schema lets only digits pass
			}
			storage.Volumes = append(storage.Volumes, v)
		}
		if err := c.addStorage(ai, storage); err != nil {
			return err
		}
	}
	ai.Template = in.Template.Path
	if c.given("template_override") {
		ai.TemplateOverride = c.body["template_override"]
	}
	if len(ai.SnapshotPolicies) == 0 {
		ai.SnapshotPolicies = slices.Clone(t.SnapshotPolicies)
	}
	return nil
}

// check refuses overrides of what the template does not have, and sizes that no volume can have.
func (o templateOverride) check(t *appTemplate) error {
	for si, storage := range o.Storage {
		for vol, v := range storage.Volumes {
			if !t.has(si, vol) {
				return refused("template_override: template %s has no volume %s in %s", t.Name, vol, si)
			}
			if size, _ := strconv.Atoi(v.Size); v.Size != "" && size > maxSize {
				return invalid("template_override", "size %s is not between 1 and %d", v.Size, maxSize)
			}
		}
	}
	return nil
}

func (t *appTemplate) has(storage, volume string) bool {
	for _, s := range t.Storage {
		for _, v := range s.Volumes {
			if s.Name == storage && v.Name == volume {
				return true
			}
		}
	}
	return false
}

func viewTemplate(c *call, t *appTemplate, owner string) entity {
	storage := make([]entity, 0, len(t.Storage))
	for i := range t.Storage {
		storage = append(storage, c.viewStorageTemplate(t.path(), &t.Storage[i]))
	}
	return entity{"path": t.path(), "name": t.Name, "descr": t.Descr, "tenant": owner, "storage_templates": storage,
		"snapshot_policies": viewPolicies(t.path(), t.SnapshotPolicies), "app_instances": c.madeFrom(t)}
}

// madeFrom are the app instances that a template was used for, in the tenant of the call and below it.
func (c *call) madeFrom(t *appTemplate) []ref {
	made := []ref{}
	for _, p := range sortedKeys(c.cluster.Tenants) {
		used, _, _ := inherited(c.cluster, p, t.Name, templates)
		if used != t || !c.within(p) {
			continue
		}
		for _, id := range sortedKeys(c.cluster.Tenants[p].AppInstances) {
			if ai := c.cluster.Tenants[p].AppInstances[id]; ai.Template == t.path() {
				made = append(made, ref{ai.path()})
			}
		}
	}
	return made
}

func listTemplates(c *call) (any, error) { return listOf(c, templates, viewTemplate) }
func readTemplate(c *call) (any, error)  { return read(c, "/app_templates", templates, viewTemplate) }
func deleteTemplate(c *call) (any, error) {
	return remove(c, "/app_templates", templates, viewTemplate)
}

func createTemplate(c *call) (any, error) {
	var in struct {
		appTemplate
		CopyFrom *ref `json:"copy_from"`
	}
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if _, exists := c.tenant.Templates[in.Name]; exists {
		return nil, conflict("app template %s exists already", in.Name)
	}
	t := in.appTemplate
	if in.CopyFrom != nil {
		from, _, ok := follow(c, "/app_templates", in.CopyFrom.Path, templates)
		if !ok {
			return nil, notFound(in.CopyFrom.Path)
		}
		t.Storage, t.SnapshotPolicies = cloneStorageTemplates(from.Storage), slices.Clone(from.SnapshotPolicies)
	}
	c.tenant.Templates[t.Name] = &t
	return viewTemplate(c, &t, c.tenant.Path), nil
}

func updateTemplate(c *call) (any, error) {
	t, err := own(c, "/app_templates", c.variable("name"), templates)
	if err != nil {
		return nil, err
	}
	next := appTemplate{Name: t.Name, Descr: t.Descr, SnapshotPolicies: t.SnapshotPolicies, Storage: t.Storage}
	if c.given("storage_templates") {
		next.Storage = nil
	}
	if err := c.bind(&next); err != nil {
		return nil, err
	}
	*t = next
	return viewTemplate(c, t, c.tenant.Path), nil
}
