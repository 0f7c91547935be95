package dateratest

import (
	"path"
	"slices"
	"strings"
)

type aclInput struct {
	Initiators *[]ref `json:"initiators"`
	Groups     *[]ref `json:"initiator_groups"`
}

type memberInput struct {
	Path string `json:"path"`
	Op   string `json:"op"`
}

type authInput struct {
	Type              string  `json:"type"`
	InitiatorUser     *string `json:"initiator_user_name"`
	InitiatorPassword *string `json:"initiator_pswd"`
	TargetUser        *string `json:"target_user_name"`
	TargetPassword    *string `json:"target_pswd"`
}

// apply sets what is given. The target_ credentials are those that the host presents, the initiator_ ones those
// that the target presents in return.
func (in *authInput) apply(a *auth) error {
	next := *a
	setIf(&next.Type, in.Type)
	for _, f := range []struct {
		to   *string
		from *string
	}{{&next.InitiatorUser, in.InitiatorUser}, {&next.InitiatorPassword, in.InitiatorPassword},
		{&next.TargetUser, in.TargetUser}, {&next.TargetPassword, in.TargetPassword}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	switch {
	case in.Type == "none":
		next = auth{Type: "none"}
	case next.Type == "none":
	case next.TargetUser == "" || next.TargetPassword == "":
		return refused("auth type %s needs target_user_name and target_pswd", next.Type)
	case next.Type == "mchap" && (next.InitiatorUser == "" || next.InitiatorPassword == ""):
		return refused("auth type mchap needs initiator_user_name and initiator_pswd")
	case next.Type == "mchap" && next.InitiatorPassword == next.TargetPassword:
		return refused("auth type mchap needs two different passwords")
	}
	*a = next
	return nil
}

func viewAuth(si string, a auth) entity {
	return entity{"path": si + "/auth", "type": a.Type, "initiator_user_name": a.InitiatorUser, "initiator_pswd": "(hidden)",
		"target_user_name": a.TargetUser, "target_pswd": "(hidden)"}
}

func readAuth(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return viewAuth(si.path(ai), si.Auth), nil
}

func updateAuth(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	var in authInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := in.apply(&si.Auth); err != nil {
		return nil, err
	}
	return viewAuth(si.path(ai), si.Auth), nil
}

func (c *call) viewACL(ai *appInstance, si *storageInstance) entity {
	return entity{"path": si.path(ai) + "/acl_policy", "initiators": c.viewMembers(si.Initiators), "initiator_groups": c.viewMembers(si.Groups)}
}

// viewMembers shows initiators or groups: a bare path on v2.1, more on later versions.
func (c *call) viewMembers(paths []string) []entity {
	items := make([]entity, 0, len(paths))
	for _, p := range paths {
		item := entity{"path": p}
		if c.dialect.api >= v22 {
			collection, name := path.Split(p)
			item["name"] = name
			if collection == "/initiators/" {
				if in, owner, ok := inherited(c.cluster, c.tenant.Path, name, initiators); ok {
					item["id"], item["name"], item["tenant"] = in.ID, in.Name, owner
				}
			} else if _, owner, ok := inherited(c.cluster, c.tenant.Path, name, groups); ok {
				item["tenant"] = owner
			}
		}
		items = append(items, item)
	}
	return items
}

func readACL(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.viewACL(ai, si), nil
}

func updateACL(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	var in aclInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := c.replaceACL(si, in); err != nil {
		return nil, err
	}
	return c.viewACL(ai, si), nil
}

// replaceACL replaces the lists that are given and leaves the others alone.
func (c *call) replaceACL(si *storageInstance, in aclInput) error {
	hosts, err := c.memberPaths(in.Initiators, c.knownInitiator)
	if err != nil {
		return err
	}
	groups, err := c.memberPaths(in.Groups, c.knownGroup)
	if err != nil {
		return err
	}
	if in.Initiators != nil {
		si.Initiators = hosts
	}
	if in.Groups != nil {
		si.Groups = groups
	}
	return nil
}

// memberPaths checks a list of references. Naming one twice is harmless: the vendor's CSI driver does.
func (c *call) memberPaths(refs *[]ref, known func(string) error) ([]string, error) {
	paths := []string{}
	for _, r := range valueOf(refs) {
		r.Path = c.foldPath(r.Path)
		if err := known(r.Path); err != nil {
			return nil, err
		}
		if !slices.Contains(paths, r.Path) {
			paths = append(paths, r.Path)
		}
	}
	return paths, nil
}

// foldPath is the path of an initiator as it is kept; other paths stay as they are.
func (c *call) foldPath(path string) string {
	if strings.HasPrefix(path, "/initiators/") {
		return c.fold(path)
	}
	return path
}

func (c *call) knownInitiator(path string) error {
	if _, _, ok := follow(c, "/initiators", path, initiators); !ok {
		return notFound(path)
	}
	return nil
}

func (c *call) knownGroup(path string) error {
	if _, _, ok := follow(c, "/initiator_groups", path, groups); !ok {
		return notFound(path)
	}
	return nil
}

func listACLInitiators(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.page(c.viewEach(si.Initiators))
}

func listACLGroups(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.page(c.viewEach(si.Groups))
}

// viewEach shows the initiators or groups themselves, where an ACL policy and a group refer to them only.
func (c *call) viewEach(paths []string) []entity {
	items := make([]entity, 0, len(paths))
	for _, p := range paths {
		items = append(items, c.viewMember(p))
	}
	return items
}

// viewMember shows the initiator or group at a path.
func (c *call) viewMember(path string) entity {
	if in, owner, ok := follow(c, "/initiators", path, initiators); ok {
		return viewInitiator(c, in, owner)
	}
	if g, owner, ok := follow(c, "/initiator_groups", path, groups); ok {
		return viewGroup(c, g, owner)
	}
	return entity{"path": path}
}

func changeACLInitiators(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.changeMember(&si.Initiators, c.knownInitiator)
}

func changeACLGroups(c *call) (any, error) {
	_, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.changeMember(&si.Groups, c.knownGroup)
}

// changeMember adds one reference to a list or removes one, and answers what it refers to, not what holds the list.
func (c *call) changeMember(paths *[]string, known func(string) error) (any, error) {
	var in memberInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	in.Path = c.foldPath(in.Path)
	present := slices.Contains(*paths, in.Path)
	switch {
	case in.Op == "remove" && !present:
		return nil, notFound(in.Path + " in " + c.path)
	case in.Op == "remove":
		*paths = slices.DeleteFunc(slices.Clone(*paths), func(p string) bool { return p == in.Path })
		return c.viewMember(in.Path), nil
	case present:
		return nil, conflict("%s is in %s already", in.Path, c.path)
	}
	if err := known(in.Path); err != nil {
		return nil, err
	}
	*paths = append(slices.Clone(*paths), in.Path)
	return c.viewMember(in.Path), nil
}

// allowed are the IQNs that may log in to a storage instance of the tenant, sorted; everybody may with allow_all.
func (s *Server) allowed(t *tenant, si *storageInstance) []string {
	hosts := slices.Clone(si.Initiators)
	for _, g := range si.Groups {
		if group, _, ok := inherited(s.cluster, t.Path, path.Base(g), groups); ok {
			hosts = append(hosts, group.Members...)
		}
	}
	for i, h := range hosts {
		hosts[i] = strings.TrimPrefix(h, "/initiators/")
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// activeInitiators are the hosts with a session, a real one or one that a test pretended.
func (c *call) activeInitiators(si *storageInstance) []string {
	active := append(append([]string{}, c.sessions[si.IQN]...), c.data.pretended(si.IQN)...)
	slices.Sort(active)
	return slices.Compact(active)
}
