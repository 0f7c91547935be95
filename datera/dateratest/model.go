package dateratest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	online, offline = "online", "offline"
	allowAll        = "allow_all"
	denyAll         = "deny_all"
	rootTenant      = "/root"
	noUUID          = "00000000-0000-0000-0000-000000000000"
)

// cluster is all that survives a restart.
type cluster struct {
	UUID    string             `json:"uuid"`
	Name    string             `json:"name"`
	Nodes   []string           `json:"nodes"`
	Tenants map[string]*tenant `json:"tenants"` // by path
	Users   map[string]*user   `json:"users"`
	// Settings are what an administrator changed, by path; Documents what is only kept, by collection and uuid.
	Settings  map[string]entity            `json:"settings,omitempty"`
	Documents map[string]map[string]entity `json:"documents,omitempty"`
}

type tenant struct {
	Path         string                     `json:"path"`
	Descr        string                     `json:"descr"`
	AppInstances map[string]*appInstance    `json:"app_instances"` // by id
	Initiators   map[string]*initiator      `json:"initiators"`    // by IQN
	Groups       map[string]*initiatorGroup `json:"initiator_groups"`
	Pools        map[string]*ipPool         `json:"ip_pools"`
	Templates    map[string]*appTemplate    `json:"app_templates"`
	Placements   map[string]*placement      `json:"placement_policies"`
	Media        map[string]*media          `json:"media_policies"`
}

type user struct {
	ID       string   `json:"user_id"`
	FullName string   `json:"full_name"`
	Password string   `json:"password"`
	Email    string   `json:"email"`
	Enabled  bool     `json:"enabled"`
	Roles    []string `json:"roles"`
	Tenants  []string `json:"tenants"`
}

type appInstance struct {
	ID               string             `json:"id"`
	UUID             string             `json:"uuid"`
	Name             string             `json:"name"`
	Descr            string             `json:"descr"`
	CreateMode       string             `json:"create_mode"`
	AdminState       string             `json:"admin_state"`
	AccessControl    string             `json:"access_control_mode"`
	Template         string             `json:"app_template"`
	TemplateOverride any                `json:"template_override,omitempty"`
	CloneSrc         string             `json:"clone_src"`
	ClonedAt         time.Time          `json:"cloned_at"`
	RestorePoint     string             `json:"restore_point"`
	RepairPriority   string             `json:"repair_priority"`
	Storage          []*storageInstance `json:"storage_instances"`
	Snapshots        []*snapshot        `json:"snapshots"`
	SnapshotPolicies []snapshotPolicy   `json:"snapshot_policies"`
	Metadata         map[string]any     `json:"metadata"`
}

type storageInstance struct {
	Name          string         `json:"name"`
	UUID          string         `json:"uuid"`
	IQN           string         `json:"iqn"`
	IPs           []string       `json:"ips"`
	Port          uint16         `json:"port"`
	AdminState    string         `json:"admin_state"`
	AccessControl string         `json:"access_control_mode"`
	Service       string         `json:"service_configuration"`
	Pool          string         `json:"ip_pool"`
	Initiators    []string       `json:"initiators"`       // paths
	Groups        []string       `json:"initiator_groups"` // paths
	Auth          auth           `json:"auth"`
	Volumes       []*volume      `json:"volumes"`
	Ready         readiness      `json:"ready"`
	AccessAt      time.Time      `json:"access_at"`
	Metadata      map[string]any `json:"metadata"`
}

type auth struct {
	Type              string `json:"type"`
	InitiatorUser     string `json:"initiator_user_name"`
	InitiatorPassword string `json:"initiator_pswd"`
	TargetUser        string `json:"target_user_name"`
	TargetPassword    string `json:"target_pswd"`
}

type volume struct {
	Name             string           `json:"name"`
	UUID             string           `json:"uuid"`
	Size             int              `json:"size"` // GiB
	OldSize          int              `json:"old_size"`
	ResizedAt        time.Time        `json:"resized_at"`
	Replicas         int              `json:"replica_count"`
	PlacementMode    string           `json:"placement_mode"`
	PlacementPolicy  string           `json:"placement_policy"`
	CapacityInUse    int              `json:"capacity_in_use"` // GiB; what a test or a fault says
	RestorePoint     string           `json:"restore_point"`
	Performance      *performance     `json:"performance_policy"`
	Snapshots        []*snapshot      `json:"snapshots"`
	SnapshotPolicies []snapshotPolicy `json:"snapshot_policies"`
	CopyFrom         string           `json:"copy_from,omitempty"` // backing file this volume's content still has to come from
	CopyError        string           `json:"copy_error,omitempty"`
}

type performance struct {
	TotalIOPS      int `json:"total_iops_max"`
	ReadIOPS       int `json:"read_iops_max"`
	WriteIOPS      int `json:"write_iops_max"`
	TotalBandwidth int `json:"total_bandwidth_max"`
	ReadBandwidth  int `json:"read_bandwidth_max"`
	WriteBandwidth int `json:"write_bandwidth_max"`
}

type snapshot struct {
	ID        string    `json:"id"` // names its backing file; the uuid is unique in its volume only
	UUID      string    `json:"uuid"`
	Stamp     string    `json:"utc_ts"`
	Size      int       `json:"size"` // GiB
	Ready     readiness `json:"ready"`
	CopyFrom  string    `json:"copy_from,omitempty"`
	CopyError string    `json:"copy_error,omitempty"`
}

type snapshotPolicy struct {
	Name      string `json:"name"`
	Interval  string `json:"interval"`
	Retention int    `json:"retention_count"`
	StartTime string `json:"start_time,omitempty"`
}

type initiator struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type initiatorGroup struct {
	Name    string   `json:"name"`
	Members []string `json:"members"` // paths
}

type ipPool struct {
	Name  string        `json:"name"`
	Descr string        `json:"descr"`
	Paths []networkPath `json:"network_paths"`
}

type networkPath struct {
	Name    string `json:"name"`
	StartIP string `json:"start_ip"`
	Range   int    `json:"range"`
	Netmask int    `json:"netmask"`
	VLAN    int    `json:"vlan"`
	MTU     int    `json:"mtu"`
	Gateway string `json:"gateway"`
	Port    uint16 `json:"port,omitempty"` // only of the cluster's own portals
}

type placement struct {
	Name  string   `json:"name"`
	Descr string   `json:"descr"`
	Max   []string `json:"max"`
	Min   []string `json:"min"`
}

type media struct {
	Name     string `json:"name"`
	Descr    string `json:"descr"`
	Priority int    `json:"priority"`
}

// readiness says when something that was just made or switched on becomes available, and whether it ever does.
type readiness struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome,omitempty"` // "", "never" or "failed"
}

func (r readiness) state(now time.Time) string {
	switch {
	case r.Outcome == outcomeFailed:
		return "failed"
	case r.Outcome == outcomeNever || now.Before(r.At):
		return "unavailable"
	}
	return "available"
}

// sizeAt is the size in GiB, which changes only when a resize is over.
func (v *volume) sizeAt(now time.Time) int {
	if now.Before(v.ResizedAt) {
		return v.OldSize
	}
	return v.Size
}

func newCluster(o Options) *cluster {
	c := &cluster{UUID: uuid.NewString(), Name: "sim", Tenants: map[string]*tenant{}, Users: map[string]*user{}}
	for range 3 {
		c.Nodes = append(c.Nodes, uuid.NewString())
	}
	root := newTenant(rootTenant, "")
	root.Media["hybrid"] = &media{Name: "hybrid", Priority: 1}
	root.Placements["default"] = &placement{Name: "default", Max: []string{"/media_policies/hybrid"}, Min: []string{}}
	for name, size := range map[string]int{"basic": 16, "basic_small": 1} {
		root.Templates[name] = basicTemplate(name, size)
	}
	c.Tenants[rootTenant] = root
	return c
}

// adopt lets the options of this start win over what was kept from the last: credentials and portals.
func (c *cluster) adopt(o Options) {
	c.Users[o.User] = &user{ID: o.User, FullName: o.User, Password: o.Password, Enabled: true, Roles: []string{"/roles/admin"}, Tenants: []string{rootTenant}}
	for _, u := range c.Users {
		if u.Tenants == nil { // of a state that is older than tenants of users
			u.Tenants = []string{rootTenant}
		}
	}
	pool := &ipPool{Name: "default"}
	for i, p := range o.Portals {
		pool.Paths = append(pool.Paths, networkPath{Name: fmt.Sprintf("access_%d", i+1), StartIP: p.Addr().String(), Range: 6,
			Netmask: 24, MTU: 1500, Port: p.Port()})
	}
	c.Tenants[rootTenant].Pools["default"] = pool
	for _, t := range c.Tenants {
		for _, ai := range t.AppInstances {
			for _, si := range ai.Storage {
				if si.Pool == "/access_network_ip_pools/default" {
					si.IPs, si.Port = pool.addresses()
				}
			}
		}
	}
}

func newTenant(path, descr string) *tenant {
	return &tenant{Path: path, Descr: descr, AppInstances: map[string]*appInstance{}, Initiators: map[string]*initiator{},
		Groups: map[string]*initiatorGroup{}, Pools: map[string]*ipPool{}, Templates: map[string]*appTemplate{},
		Placements: map[string]*placement{}, Media: map[string]*media{}}
}

// addresses gives one address of each of the pool's networks, and the port if all portals share one other than 3260.
func (p *ipPool) addresses() ([]string, uint16) {
	var ips []string
	var port uint16 = 3260
	for _, n := range p.Paths {
		ips = append(ips, n.StartIP)
		if n.Port != 0 {
			port = n.Port
		}
	}
	return ips, port
}

// newIQN names a target. Its first eight digits are the cluster's, by which a cluster knows its own targets again.
func (c *cluster) newIQN() string {
	return c.iqnPrefix() + randomHex(4)
}

func (c *cluster) iqnPrefix() string {
	return "iqn.2013-05.com.daterainc:tc:01:sn:" + strings.ReplaceAll(c.UUID, "-", "")[:8]
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails, says its documentation
	return hex.EncodeToString(b)
}

// volumes goes over every volume of the cluster.
func (c *cluster) volumes() iter.Seq[*volume] {
	return func(yield func(*volume) bool) {
		for _, t := range c.Tenants {
			for _, ai := range t.AppInstances {
				for _, v := range ai.volumes() {
					if !yield(v) {
						return
					}
				}
			}
		}
	}
}
