package dateratest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// AppInstance is what a test sees of an app instance with one storage instance and one volume.
type AppInstance struct {
	ID, Name, AdminState string
	VolumeUUID           string
	SizeGiB, Replicas    int
	IQN                  string
	IPs                  []string
	AccessControl        string   // "allow_all" or "deny_all"
	Initiators, Groups   []string // paths in the ACL policy
	Allowed              []string // IQNs that may log in, by themselves or by a group
	AuthType             string
	Template, CloneSrc   string
	IPPool               string
	PlacementMode        string
	PlacementPolicy      string
	TotalIOPS            int
	TotalBandwidth       int // KiB/s
	Metadata             map[string]any
	Snapshots            []string // time stamps
}

// Do makes one call of the API as an administrator, without HTTP: it is not recorded and spared from faults.
// The path has no version. It returns the data of the answer.
func (s *Server) Do(tenant, method, path string, body any) (map[string]any, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(context.Background(), method, "/"+v23.String()+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	k := randomHex(16)
	r.Header.Set("Auth-Token", k)
	r.Header.Set("tenant", tenant)
	s.mu.Lock()
	s.keys[k] = &key{s.options.User, s.now().Add(s.options.SessionLifetime)}
	s.mu.Unlock()
	defer s.forget(k)
	c, err := s.newCall(r)
	if err != nil {
		return nil, err
	}
	answer, err := s.perform(c, r, s.now())
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	var out struct {
		Data map[string]any `json:"data"`
	}
	return out.Data, json.Unmarshal(answer, &out)
}

func (s *Server) forget(k string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, k)
}

// CreateAppInstance makes an app instance of the root tenant with storage-1 and volume-1.
func (s *Server) CreateAppInstance(name string, sizeGiB int) (AppInstance, error) {
	_, err := s.Do(rootTenant, http.MethodPost, "/app_instances", entity{"name": name, "storage_instances": []any{
		entity{"name": "storage-1", "volumes": []any{entity{"name": "volume-1", "size": sizeGiB}}}}})
	if err != nil {
		return AppInstance{}, err
	}
	ai, _ := s.AppInstance(rootTenant, name)
	return ai, nil
}

// AppInstance looks one up by tenant and name or id.
func (s *Server) AppInstance(tenant, name string) (AppInstance, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ai := s.lookup(tenant, name)
	if ai == nil {
		return AppInstance{}, false
	}
	out := AppInstance{ID: ai.ID, Name: ai.Name, AdminState: ai.AdminState, Template: ai.Template, CloneSrc: ai.CloneSrc, Metadata: entity{}}
	for k, v := range ai.Metadata {
		out.Metadata[k] = v
	}
	if len(ai.Storage) == 0 {
		return out, true
	}
	si := ai.Storage[0]
	out.IQN, out.IPs, out.AccessControl, out.IPPool, out.AuthType = si.IQN, slices.Clone(si.IPs), si.AccessControl, si.Pool, si.Auth.Type
	out.Initiators, out.Groups, out.Allowed = slices.Clone(si.Initiators), slices.Clone(si.Groups), s.allowed(t, si)
	if len(si.Volumes) == 0 {
		return out, true
	}
	v := si.Volumes[0]
	out.VolumeUUID, out.SizeGiB, out.Replicas, out.PlacementMode, out.PlacementPolicy = v.UUID, v.Size, v.Replicas, v.PlacementMode, v.PlacementPolicy
	if v.Performance != nil {
		out.TotalIOPS, out.TotalBandwidth = v.Performance.TotalIOPS, v.Performance.TotalBandwidth
	}
	for _, snap := range v.Snapshots {
		out.Snapshots = append(out.Snapshots, snap.Stamp)
	}
	return out, true
}

// lookup finds an app instance; the caller holds s.mu.
func (s *Server) lookup(tenant, name string) (*tenant, *appInstance) {
	t := s.cluster.Tenants[tenant]
	if t == nil {
		return nil, nil
	}
	return t, (&call{Server: s, tenant: t}).findAppInstance(name)
}

// AppInstances are the names of a tenant's app instances, sorted.
func (s *Server) AppInstances(tenant string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	if t := s.cluster.Tenants[tenant]; t != nil {
		for _, ai := range t.AppInstances {
			names = append(names, ai.Name)
		}
	}
	slices.Sort(names)
	return names
}

// RegisterInitiator makes a host known to the root tenant.
func (s *Server) RegisterInitiator(iqn, name string) error {
	_, err := s.Do(rootTenant, http.MethodPost, "/initiators", entity{"id": iqn, "name": name})
	return err
}

// Initiators are the registered hosts of a tenant, names by IQN.
func (s *Server) Initiators(tenant string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]string{}
	if t := s.cluster.Tenants[tenant]; t != nil {
		for iqn, in := range t.Initiators {
			names[iqn] = in.Name
		}
	}
	return names
}

// InitiatorGroup are the IQNs in a group of a tenant.
func (s *Server) InitiatorGroup(tenant, name string) (members []string, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.cluster.Tenants[tenant]
	if t == nil || t.Groups[name] == nil {
		return nil, false
	}
	for _, m := range t.Groups[name].Members {
		members = append(members, m[len("/initiators/"):])
	}
	return members, true
}

// SetMetadata stores one member of the metadata of an app instance of the root tenant.
func (s *Server) SetMetadata(name, key string, value any) error {
	_, err := s.Do(rootTenant, http.MethodPut, "/app_instances/"+name+"/metadata", entity{key: value})
	return err
}

// SetCapacityInUse pretends that the volumes of an app instance of the root tenant were written to.
func (s *Server) SetCapacityInUse(name string, gib int) error {
	return s.change(name, func(ai *appInstance) {
		for _, v := range ai.volumes() {
			v.CapacityInUse = gib
		}
	})
}

// SetActiveInitiators pretends that hosts are logged in to an app instance of the root tenant. Such a session ends
// when the target goes offline or the host leaves the ACL, as a real one would.
func (s *Server) SetActiveInitiators(name string, iqns ...string) error {
	folded := make([]string, len(iqns))
	for i, iqn := range iqns {
		folded[i] = s.fold(iqn)
	}
	return s.change(name, func(ai *appInstance) {
		for _, si := range ai.Storage {
			s.data.pretend(si.IQN, folded)
		}
	})
}

func (s *Server) change(name string, do func(*appInstance)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ai := s.lookup(rootTenant, name)
	if ai == nil {
		return fmt.Errorf("app instance %s does not exist", name)
	}
	do(ai)
	return s.save()
}

// ExpireKeys ends every session of the REST API now.
func (s *Server) ExpireKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.keys)
}
