package dateratest

import "slices"

// template is the one that the path of the call names below its collection: to read an inherited one, to change an own one.
func (c *call) template() (*appTemplate, error) {
	name := c.variable("template")
	if c.method != "GET" {
		return own(c, "/app_templates", name, templates)
	}
	t, _, ok := inherited(c.cluster, c.tenant.Path, name, templates)
	if !ok {
		return nil, notFound("/app_templates/" + name)
	}
	return t, nil
}

func (c *call) storageTemplate() (*appTemplate, *storageTemplate, string, error) {
	t, err := c.template()
	if err != nil {
		return nil, nil, "", err
	}
	at := t.path() + "/storage_templates/" + c.variable("st")
	if s := t.storage(c.variable("st")); s != nil {
		return t, s, at, nil
	}
	return nil, nil, "", notFound(at)
}

func (c *call) volumeTemplate() (*volumeInput, string, error) {
	_, s, at, err := c.storageTemplate()
	if err != nil {
		return nil, "", err
	}
	at += "/volume_templates/" + c.variable("vt")
	if v := s.volume(c.variable("vt")); v != nil {
		return v, at, nil
	}
	return nil, "", notFound(at)
}

func (t *appTemplate) storage(name string) *storageTemplate {
	i := slices.IndexFunc(t.Storage, func(s storageTemplate) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Storage[i]
}

func (s *storageTemplate) volume(name string) *volumeInput {
	i := slices.IndexFunc(s.Volumes, func(v volumeInput) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Volumes[i]
}

// cloneStorageTemplates copies what can be changed piece by piece.
func cloneStorageTemplates(from []storageTemplate) []storageTemplate {
	out := slices.Clone(from)
	for i := range out {
		out[i].Volumes = slices.Clone(from[i].Volumes)
		for j := range out[i].Volumes {
			out[i].Volumes[j].SnapshotPolicies = slices.Clone(out[i].Volumes[j].SnapshotPolicies)
		}
	}
	return out
}

func (c *call) viewStorageTemplate(template string, s *storageTemplate) entity {
	at := template + "/storage_templates/" + s.Name
	volumes := make([]entity, 0, len(s.Volumes))
	for i := range s.Volumes {
		volumes = append(volumes, viewVolumeTemplate(at+"/volume_templates/"+s.Volumes[i].Name, &s.Volumes[i]))
	}
	pool := firstOf(valueOf(s.Pool).Path, "/access_network_ip_pools/default")
	out := entity{"path": at, "name": s.Name, "ip_pool": ref{pool}, "auth": viewAuth(at, s.auth()), "volume_templates": volumes}
	if c.dialect.api >= v22 {
		out["service_configuration"] = firstOf(s.Service, "iscsi")
	}
	return out
}

func (s *storageTemplate) auth() auth {
	in := valueOf(s.Auth)
	return auth{Type: firstOf(in.Type, "none"), InitiatorUser: valueOf(in.InitiatorUser), TargetUser: valueOf(in.TargetUser)}
}

func viewVolumeTemplate(at string, v *volumeInput) entity {
	out := entity{"path": at, "name": v.Name, "size": v.Size, "replica_count": max(v.Replicas, 1),
		"placement_mode": firstOf(v.PlacementMode, "hybrid"), "snapshot_policies": viewPolicies(at, v.SnapshotPolicies)}
	if v.Performance != nil {
		out["performance_policy"] = viewPerformance(at, v.Performance)
	}
	if v.PlacementPolicy != nil {
		out["placement_policy"] = *v.PlacementPolicy
	}
	return out
}

func listStorageTemplates(c *call) (any, error) {
	t, err := c.template()
	if err != nil {
		return nil, err
	}
	var items []entity
	for i := range t.Storage {
		items = append(items, c.viewStorageTemplate(t.path(), &t.Storage[i]))
	}
	return c.page(items)
}

func createStorageTemplate(c *call) (any, error) {
	t, err := c.template()
	if err != nil {
		return nil, err
	}
	var in storageTemplate
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if t.storage(in.Name) != nil {
		return nil, conflict("storage template %s exists already in %s", in.Name, t.path())
	}
	t.Storage = append(t.Storage, in)
	return c.viewStorageTemplate(t.path(), &in), nil
}

func readStorageTemplate(c *call) (any, error) {
	t, s, _, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	return c.viewStorageTemplate(t.path(), s), nil
}

func updateStorageTemplate(c *call) (any, error) {
	t, s, _, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	in := storageTemplate{}
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if in.Auth != nil {
		s.mergeAuth(*in.Auth)
	}
	if in.Pool != nil && in.Pool.Path != "" {
		s.Pool = in.Pool
	}
	if c.given("volume_templates") {
		s.Volumes = in.Volumes
	}
	return c.viewStorageTemplate(t.path(), s), nil
}

func deleteStorageTemplate(c *call) (any, error) {
	t, s, _, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	view := c.viewStorageTemplate(t.path(), s)
	t.Storage = slices.DeleteFunc(slices.Clone(t.Storage), func(other storageTemplate) bool { return other.Name == c.variable("st") })
	return view, nil
}

// mergeAuth sets what is given and leaves the rest.
func (s *storageTemplate) mergeAuth(in authInput) {
	next := valueOf(s.Auth)
	setIf(&next.Type, in.Type)
	for _, f := range []struct{ to, from **string }{{&next.InitiatorUser, &in.InitiatorUser}, {&next.InitiatorPassword, &in.InitiatorPassword},
		{&next.TargetUser, &in.TargetUser}, {&next.TargetPassword, &in.TargetPassword}} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	s.Auth = &next
}

func readTemplateAuth(c *call) (any, error) {
	_, s, at, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	return viewAuth(at, s.auth()), nil
}

func updateTemplateAuth(c *call) (any, error) {
	_, s, at, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	var in authInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	s.mergeAuth(in)
	return viewAuth(at, s.auth()), nil
}

func listVolumeTemplates(c *call) (any, error) {
	_, s, at, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	var items []entity
	for i := range s.Volumes {
		items = append(items, viewVolumeTemplate(at+"/volume_templates/"+s.Volumes[i].Name, &s.Volumes[i]))
	}
	return c.page(items)
}

func createVolumeTemplate(c *call) (any, error) {
	_, s, at, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	var in volumeInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if s.volume(in.Name) != nil {
		return nil, conflict("volume template %s exists already in %s", in.Name, at)
	}
	s.Volumes = append(s.Volumes, in)
	return viewVolumeTemplate(at+"/volume_templates/"+in.Name, &in), nil
}

func readVolumeTemplate(c *call) (any, error) {
	v, at, err := c.volumeTemplate()
	if err != nil {
		return nil, err
	}
	return viewVolumeTemplate(at, v), nil
}

func updateVolumeTemplate(c *call) (any, error) {
	v, at, err := c.volumeTemplate()
	if err != nil {
		return nil, err
	}
	next := *v
	if err := c.bind(&next); err != nil {
		return nil, err
	}
	*v = next
	return viewVolumeTemplate(at, v), nil
}

func deleteVolumeTemplate(c *call) (any, error) {
	v, at, err := c.volumeTemplate()
	if err != nil {
		return nil, err
	}
	view := viewVolumeTemplate(at, v)
	_, s, _, err := c.storageTemplate()
	if err != nil {
		return nil, err
	}
	s.Volumes = slices.DeleteFunc(slices.Clone(s.Volumes), func(other volumeInput) bool { return other.Name == c.variable("vt") })
	return view, nil
}
