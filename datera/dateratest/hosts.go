package dateratest

import "strings"

// fold writes an IQN, or the path of an initiator, as the cluster keeps it.
func (s *Server) fold(iqn string) string {
	if s.options.FoldIQNs {
		return strings.ToLower(iqn)
	}
	return iqn
}

func viewInitiator(c *call, in *initiator, owner string) entity {
	return entity{"path": "/initiators/" + in.ID, "id": in.ID, "name": in.Name, "tenant": owner}
}

func listInitiators(c *call) (any, error) { return listOf(c, initiators, viewInitiator) }
func readInitiator(c *call) (any, error)  { return read(c, "/initiators", initiators, viewInitiator) }
func deleteInitiator(c *call) (any, error) {
	return remove(c, "/initiators", initiators, viewInitiator)
}

func createInitiator(c *call) (any, error) {
	var in initiator
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	in.ID = c.fold(in.ID)
	if _, owner, exists := inherited(c.cluster, c.tenant.Path, in.ID, initiators); exists {
		if owner == c.tenant.Path {
			return nil, conflict("initiator %s exists already", in.ID)
		}
		if !c.force {
			return nil, refused("initiator %s is inherited from tenant %s; use force to override this warning", in.ID, owner)
		}
	}
	c.tenant.Initiators[in.ID] = &in
	return viewInitiator(c, &in, c.tenant.Path), nil
}

func updateInitiator(c *call) (any, error) {
	in, err := own(c, "/initiators", c.variable("name"), initiators)
	if err != nil {
		return nil, err
	}
	if err := c.bind(&struct {
		Name *string `json:"name"`
	}{&in.Name}); err != nil {
		return nil, err
	}
	return viewInitiator(c, in, c.tenant.Path), nil
}

func viewGroup(c *call, g *initiatorGroup, owner string) entity {
	out := entity{"path": "/initiator_groups/" + g.Name, "name": g.Name, "members": c.viewMembers(g.Members)}
	if c.dialect.api >= v22 {
		out["tenant"] = owner
	}
	return out
}

func listGroups(c *call) (any, error)  { return listOf(c, groups, viewGroup) }
func readGroup(c *call) (any, error)   { return read(c, "/initiator_groups", groups, viewGroup) }
func deleteGroup(c *call) (any, error) { return remove(c, "/initiator_groups", groups, viewGroup) }

type groupInput struct {
	Name    string `json:"name"`
	Members *[]ref `json:"members"`
}

func createGroup(c *call) (any, error) {
	var in groupInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if _, exists := c.tenant.Groups[in.Name]; exists {
		return nil, conflict("initiator group %s exists already", in.Name)
	}
	members, err := c.memberPaths(in.Members, c.knownInitiator)
	if err != nil {
		return nil, err
	}
	g := &initiatorGroup{in.Name, members}
	c.tenant.Groups[in.Name] = g
	return viewGroup(c, g, c.tenant.Path), nil
}

func updateGroup(c *call) (any, error) {
	g, err := own(c, "/initiator_groups", c.variable("name"), groups)
	if err != nil {
		return nil, err
	}
	var in groupInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	members, err := c.memberPaths(in.Members, c.knownInitiator)
	if err != nil {
		return nil, err
	}
	if in.Members != nil {
		g.Members = members
	}
	return viewGroup(c, g, c.tenant.Path), nil
}

func listMembers(c *call) (any, error) {
	g, _, ok := inherited(c.cluster, c.tenant.Path, c.variable("name"), groups)
	if !ok {
		return nil, notFound("/initiator_groups/" + c.variable("name"))
	}
	return c.page(c.viewEach(g.Members))
}

func changeMembers(c *call) (any, error) {
	g, err := own(c, "/initiator_groups", c.variable("name"), groups)
	if err != nil {
		return nil, err
	}
	return c.changeMember(&g.Members, c.knownInitiator)
}
