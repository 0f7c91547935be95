package dateratest

import (
	"net/http"
	"slices"

	"github.com/google/uuid"
)

type storageInstanceInput struct {
	Name          string        `json:"name"`
	AdminState    string        `json:"admin_state"`
	AccessControl string        `json:"access_control_mode"`
	Service       string        `json:"service_configuration"`
	Pool          *ref          `json:"ip_pool"`
	ACL           aclInput      `json:"acl_policy"`
	Auth          *authInput    `json:"auth"`
	Volumes       []volumeInput `json:"volumes"`
}

func (si *storageInstance) path(ai *appInstance) string {
	return ai.path() + "/storage_instances/" + si.Name
}

func (ai *appInstance) storage(name string) *storageInstance {
	for _, si := range ai.Storage {
		if si.Name == name {
			return si
		}
	}
	return nil
}

// storage is the storage instance that the path of the call names.
func (c *call) storage() (*appInstance, *storageInstance, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, nil, err
	}
	if si := ai.storage(c.variable("si")); si != nil {
		return ai, si, nil
	}
	return nil, nil, notFound(ai.path() + "/storage_instances/" + c.variable("si"))
}

func (c *call) viewStorage(ai *appInstance, si *storageInstance) entity {
	path := si.path(ai)
	volumes := make([]entity, 0, len(si.Volumes))
	for i, v := range si.Volumes {
		volumes = append(volumes, c.viewVolume(ai, si, v, i))
	}
	state, causes := c.stateOf(si)
	health := "ok"
	if len(causes) > 0 {
		health = "critical"
	}
	out := entity{
		"path": path, "name": si.Name, "uuid": si.UUID, "health": health, "causes": causes, "admin_state": si.AdminState,
		"op_state": state, "deployment_state": "deployed", "access_control_mode": si.AccessControl,
		"acl_policy": c.viewACL(ai, si), "ip_pool": resolved(c, "/access_network_ip_pools", si.Pool, pools), "access": c.viewAccess(path, si), "auth": viewAuth(path, si.Auth),
		"active_initiators": c.activeInitiators(si), "active_storage_nodes": c.activeNodes(si.AdminState), "volumes": volumes,
	}
	if c.faults.noActiveInitiators {
		delete(out, "active_initiators")
	}
	if c.dialect.api >= v22 {
		out["service_configuration"] = si.Service
	}
	return out
}

// viewAccess tells where the target is. The port is 3260 and is not named, as on a real cluster;
// only a cluster that was told to use another one says so.
func (c *call) viewAccess(path string, si *storageInstance) entity {
	ips := si.IPs
	if c.at.Before(si.AccessAt) {
		ips = []string{}
	}
	out := entity{"path": path + "/access", "ips": ips, "iqn": si.IQN}
	if si.Port != 3260 {
		out["port"] = si.Port
	}
	return out
}

// stateOf is op_state, with the causes if it is bad.
func (c *call) stateOf(si *storageInstance) (string, []string) {
	if si.AdminState == offline {
		return "unavailable", []string{}
	}
	for _, v := range si.Volumes {
		if v.CopyError != "" {
			return "failed", []string{v.CopyError}
		}
		if v.CopyFrom != "" {
			return "unavailable", []string{}
		}
	}
	state := si.Ready.state(c.at)
	if reason := c.data.failure(si.IQN); state == "available" && reason != "" {
		return "failed", []string{reason}
	}
	if c.method == http.MethodGet && c.data.waits(si.IQN) { // a call that changes something is answered when the target is there
		return "unavailable", []string{}
	}
	return state, []string{}
}

func (c *call) activeNodes(adminState string) []ref {
	if adminState == offline {
		return []ref{}
	}
	return []ref{{"/storage_nodes/" + c.cluster.Nodes[0]}}
}

func listStorage(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	items := make([]entity, 0, len(ai.Storage))
	for _, si := range ai.Storage {
		items = append(items, c.viewStorage(ai, si))
	}
	return c.page(items)
}

func readStorage(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	return c.viewStorage(ai, si), nil
}

func createStorage(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	var in storageInstanceInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := c.addStorage(ai, in); err != nil {
		return nil, err
	}
	return c.viewStorage(ai, ai.Storage[len(ai.Storage)-1]), nil
}

// addStorage builds a storage instance completely before it appends it, so that an error changes nothing.
func (c *call) addStorage(ai *appInstance, in storageInstanceInput) error {
	if ai.storage(in.Name) != nil {
		return conflict("storage instance %s exists already in %s", in.Name, ai.path())
	}
	si := &storageInstance{Name: in.Name, UUID: uuid.NewString(), IQN: c.freshIQN(), AdminState: ai.AdminState,
		AccessControl: in.AccessControl, Service: in.Service, Pool: "/access_network_ip_pools/default", Auth: auth{Type: "none"},
		Initiators: []string{}, Groups: []string{}, Metadata: entity{}}
	setDefault(&si.AccessControl, ai.AccessControl)
	setDefault(&si.Service, "iscsi")
	if in.Pool != nil && in.Pool.Path != "" {
		si.Pool = in.Pool.Path
	}
	if err := c.takeAddresses(si, si.Pool); err != nil {
		return err
	}
	if in.Auth != nil {
		if err := in.Auth.apply(&si.Auth); err != nil {
			return err
		}
	}
	if err := c.replaceACL(si, in.ACL); err != nil {
		return err
	}
	for _, v := range in.Volumes {
		if err := c.addVolume(si, v); err != nil {
			return err
		}
	}
	c.setAdminState(si, firstOf(in.AdminState, ai.AdminState))
	ai.Storage = append(ai.Storage, si)
	return nil
}

// putStorage is a nested update of the app instance: a known name is changed, a new one is added.
func (c *call) putStorage(ai *appInstance, in storageInstanceInput) error {
	if si := ai.storage(in.Name); si != nil {
		return c.changeStorage(ai, si, in)
	}
	return c.addStorage(ai, in)
}

func updateStorage(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	var in storageInstanceInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := c.changeStorage(ai, si, in); err != nil {
		return nil, err
	}
	return c.viewStorage(ai, si), nil
}

// changeStorage works on a copy, so that an error changes nothing.
func (c *call) changeStorage(ai *appInstance, si *storageInstance, in storageInstanceInput) error {
	next := *si
	next.Volumes = slices.Clone(si.Volumes)
	if in.AdminState == offline && !c.force {
		if err := c.refuseBusy(si); err != nil {
			return err
		}
	}
	if in.AdminState == online && ai.AdminState == offline {
		return refused("app instance %s is offline: set its admin_state to online first", ai.Name)
	}
	if in.AccessControl == allowAll && si.AccessControl == denyAll {
		return refused("access_control_mode can be changed from allow_all to deny_all only")
	}
	setIf(&next.AccessControl, in.AccessControl)
	if in.Pool != nil {
		if err := c.changePool(ai, &next, in); err != nil {
			return err
		}
	}
	if in.Auth != nil {
		if err := in.Auth.apply(&next.Auth); err != nil {
			return err
		}
	}
	if err := c.replaceACL(&next, in.ACL); err != nil {
		return err
	}
	for _, v := range in.Volumes {
		if next.volume(v.Name) == nil {
			if err := c.addVolume(&next, v); err != nil {
				return err
			}
		}
	}
	if in.AdminState != "" {
		c.setAdminState(&next, in.AdminState)
	}
	*si = next
	return nil
}

func (c *call) changePool(ai *appInstance, si *storageInstance, in storageInstanceInput) error {
	switch {
	case in.Pool.Path == si.Pool:
		return nil
	case ai.Template != "":
		return refused("ip_pool of %s comes from the template %s", ai.path(), ai.Template)
	case si.AdminState == online && in.AdminState != offline && !c.force:
		return refused("storage instance %s is online: set it offline before its ip_pool is changed", si.Name)
	}
	si.Pool = in.Pool.Path
	return c.takeAddresses(si, si.Pool)
}

func deleteStorage(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	if si.AdminState == online && !c.force {
		return nil, refused("storage instance %s is online: set it offline before it is deleted", si.path(ai))
	}
	if err := c.refuseCopySource(si.Volumes...); err != nil {
		return nil, err
	}
	view := c.viewStorage(ai, si)
	ai.Storage = slices.DeleteFunc(ai.Storage, func(other *storageInstance) bool { return other == si })
	return view, nil
}

// setAdminState switches a storage instance. Going online takes as long as the options and faults say;
// one that is online already stays as it is.
func (c *call) setAdminState(si *storageInstance, state string) {
	if state == si.AdminState && !si.Ready.At.IsZero() {
		return
	}
	si.AdminState = state
	if state == online {
		si.Ready = c.readiness()
		si.AccessAt = c.at.Add(c.faults.accessLate)
	}
}

// readiness is when something that this call starts is done.
func (c *call) readiness() readiness {
	return readiness{At: c.at.Add(c.options.OpStateDelay + c.faults.opStateLate), Outcome: c.faults.outcome}
}

// refuseBusy refuses to take a target away from a host that is logged in.
func (c *call) refuseBusy(storage ...*storageInstance) error {
	for _, si := range storage {
		if active := c.activeInitiators(si); si.AdminState == online && len(active) > 0 {
			return refused("storage instance %s has active initiators %v: log them out, or use force", si.Name, active)
		}
	}
	return nil
}

func (c *call) freshIQN() string {
	for {
		iqn := c.cluster.newIQN()
		if _, taken := c.storageByIQN(iqn); taken == nil {
			return iqn
		}
	}
}

func (s *Server) storageByIQN(iqn string) (*tenant, *storageInstance) {
	for _, t := range s.cluster.Tenants {
		for _, ai := range t.AppInstances {
			for _, si := range ai.Storage {
				if si.IQN == iqn {
					return t, si
				}
			}
		}
	}
	return nil, nil
}
