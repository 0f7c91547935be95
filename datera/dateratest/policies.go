package dateratest

// since22 hides a route from the first API version, which has no remote providers and storage pools.
func since22(h handler) handler {
	return func(c *call) (any, error) {
		if c.dialect.api < v22 {
			return nil, invalidRoute(c.method, c.path)
		}
		return h(c)
	}
}

// since33 hides a route from products before 3.3, which have no placement and media policies.
func since33(h handler) handler {
	return func(c *call) (any, error) {
		if !c.dialect.new33 {
			return nil, invalidRoute(c.method, c.path)
		}
		return h(c)
	}
}

func viewPlacement(_ *call, p *placement, owner string) entity {
	return entity{"path": "/placement_policies/" + p.Name, "name": p.Name, "descr": p.Descr, "max": p.Max, "min": p.Min, "tenant": owner}
}

func viewMedia(_ *call, m *media, owner string) entity {
	return entity{"path": "/media_policies/" + m.Name, "name": m.Name, "descr": m.Descr, "priority": m.Priority, "tenant": owner}
}

func listPlacements(c *call) (any, error) { return listOf(c, placements, viewPlacement) }

func readPlacement(c *call) (any, error) {
	return read(c, "/placement_policies", placements, viewPlacement)
}

func deletePlacement(c *call) (any, error) {
	if c.variable("name") == "default" {
		return nil, refused("the default placement policy cannot be deleted")
	}
	return remove(c, "/placement_policies", placements, viewPlacement)
}

func createPlacement(c *call) (any, error) {
	in := placement{Min: []string{}}
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if _, exists := c.tenant.Placements[in.Name]; exists {
		return nil, conflict("placement policy %s exists already", in.Name)
	}
	if err := c.knownMedia(in); err != nil {
		return nil, err
	}
	c.tenant.Placements[in.Name] = &in
	return viewPlacement(c, &in, c.tenant.Path), nil
}

func (c *call) knownMedia(p placement) error {
	for _, m := range append(append([]string{}, p.Max...), p.Min...) {
		if _, _, ok := follow(c, "/media_policies", m, mediaPolicies); !ok {
			return notFound(m)
		}
	}
	return nil
}

func updatePlacement(c *call) (any, error) {
	p, err := own(c, "/placement_policies", c.variable("name"), placements)
	if err != nil {
		return nil, err
	}
	next := placement{Name: p.Name, Descr: p.Descr, Max: p.Max, Min: p.Min}
	if err := c.bind(&next); err != nil {
		return nil, err
	}
	if err := c.knownMedia(next); err != nil {
		return nil, err
	}
	*p = next
	return viewPlacement(c, p, c.tenant.Path), nil
}

func listMedia(c *call) (any, error) { return listOf(c, mediaPolicies, viewMedia) }

func readMedia(c *call) (any, error) { return read(c, "/media_policies", mediaPolicies, viewMedia) }

func deleteMedia(c *call) (any, error) { return remove(c, "/media_policies", mediaPolicies, viewMedia) }

func createMedia(c *call) (any, error) {
	var in media
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if _, exists := c.tenant.Media[in.Name]; exists {
		return nil, conflict("media policy %s exists already", in.Name)
	}
	c.tenant.Media[in.Name] = &in
	return viewMedia(c, &in, c.tenant.Path), nil
}

func updateMedia(c *call) (any, error) {
	m, err := own(c, "/media_policies", c.variable("name"), mediaPolicies)
	if err != nil {
		return nil, err
	}
	if err := c.bind(m); err != nil {
		return nil, err
	}
	return viewMedia(c, m, c.tenant.Path), nil
}
