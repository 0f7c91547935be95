package driver

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// forgetful is an array that no longer knows some initiators, of its groups, too.
type forgetful struct {
	Array
	names map[string]bool // of nodes
	iqns  map[string]bool
}

func (f forgetful) InitiatorByName(ctx context.Context, name string) (*datera.Initiator, error) {
	if f.names[name] {
		return nil, fmt.Errorf("initiator %s: %w", name, datera.ErrNotFound)
	}
	return f.Array.InitiatorByName(ctx, name)
}

func (f forgetful) Initiator(ctx context.Context, iqn string) (*datera.Initiator, error) {
	if f.iqns[iqn] {
		return nil, fmt.Errorf("initiator %s: %w", iqn, datera.ErrNotFound)
	}
	return f.Array.Initiator(ctx, iqn)
}

// A member of the group that the array knows under no name may be the node, with a former IQN: it could still log in.
func TestDetachFailsByTheNameOfAMemberThatNobodyKnows(t *testing.T) {
	tests := map[string]struct {
		options  string
		detached string
		forgets  []string // nodes whose registration is gone
		fails    string   // node whose IQN the message names; "" for success
		left     []string // nodes that still have claims
	}{
		"the node is gone":                                 {readingUnder("pv-1", "vol-1"), "node-a", []string{"node-a"}, "node-a", []string{"node-a", "node-b"}},
		"the node was never there, a member is gone":       {readingUnder("pv-1", "vol-1"), "node-z", []string{"node-b"}, "node-b", []string{"node-a", "node-b"}},
		"the node has no claim, a member is gone":          {readingUnder("pv-1", "vol-1"), "node-c", []string{"node-b"}, "node-b", []string{"node-a", "node-b"}},
		"the node has its claim, another member is gone":   {readingUnder("pv-1", "vol-1"), "node-a", []string{"node-b"}, "", []string{"node-b"}},
		"the node has no claim, and everybody is known":    {readingUnder("pv-1", "vol-1"), "node-c", nil, "", []string{"node-a", "node-b"}},
		"the node was never there, and everybody is known": {readingUnder("pv-1", "vol-1"), "node-z", nil, "", []string{"node-a", "node-b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			nodes := map[string]*node{}
			for _, name := range []string{"node-a", "node-b", "node-c"} {
				nodes[name] = newNode(t, server, name).registered(t)
			}
			control := newNode(t, server, "control")
			control.ask(t, "attach", test.options, "node-a")
			control.ask(t, "attach", test.options, "node-b")
			gone := forgetful{names: map[string]bool{}, iqns: map[string]bool{}}
			for _, name := range test.forgets {
				gone.names[InitiatorName("kubernetes", name)], gone.iqns[nodes[name].iqn] = true, true
			}
			control.over(func(real Array) Array { return forgetful{real, gone.names, gone.iqns} })
			err := control.try(t, "detach", "pv-1", test.detached)
			if test.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, nodes[test.fails].iqn+" has a claim, but http://sim.test:7717 does not know it as an initiator")
				require.ErrorContains(t, err, "so it may be node "+test.detached)
				require.ErrorContains(t, err, "initiator group "+groupName("kubernetes", "pv-1", idOf(t, server, "vol-1"), "ro"))
			}
			var left []string
			for _, name := range test.left {
				left = append(left, nodes[name].iqn)
			}
			require.Equal(t, left, letIn(t, server, "vol-1"))
		})
	}
}

// isattached, too, does not call a node detached that may be one of the members.
func TestIsAttachedFailsByTheNameOfAMemberThatNobodyKnows(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
	n.over(func(real Array) Array {
		return forgetful{real, map[string]bool{InitiatorName("kubernetes", "node-a"): true}, map[string]bool{n.iqn: true}}
	})
	require.Contains(t, n.refused(t, "isattached", optionsUnder("pv-1", "vol-1"), "node-a"), n.iqn+" has a claim")
}

// withTenants is an array with tenants below the root.
func withTenants(t *testing.T, names ...string) *dateratest.Server {
	t.Helper()
	server := array(t)
	for _, name := range names {
		_, err := server.Do("/root", http.MethodPost, "/tenants", map[string]any{"name": name})
		require.NoError(t, err)
	}
	return server
}

func inTenant(tenant string) func(*Config) { return func(c *Config) { c.Tenant = tenant } }

func optionsIn(tenant, name, volume string) string {
	return optionsWith(map[string]string{keyName: name, optVolumeID: volume, optTenant: tenant})
}

// letInOf is letIn for another tenant than the root.
func letInOf(t *testing.T, server *dateratest.Server, tenant, volume string) []string {
	t.Helper()
	ai, found := server.AppInstance(tenant, volume)
	require.True(t, found, "volume %s of %s", volume, tenant)
	return append([]string(nil), ai.Allowed...)
}

// Two clusters of one name, in two tenants, have nodes and PersistentVolumes of the same names.
func TestDetachLeavesTheNodeOfAnotherTenantAlone(t *testing.T) {
	for where, homes := range map[string][2]string{
		"in parent and child": {"/root", "/root/dev"},
		"in child and parent": {"/root/dev", "/root"},
		"in siblings":         {"/root/dev", "/root/prod"},
	} {
		for how, ids := range map[string][2]string{"with identities": {"id-1", "id-2"}, "by name alone": {}} {
			t.Run(where+", "+how, func(t *testing.T) {
				server := withTenants(t, "dev", "prod")
				in := func(i int, iqn string) *node {
					n := newNode(t, server, "node-a", func(c *Config) {
						c.Tenant, c.ClusterID = homes[i], ids[i]
						if ids[i] == "" {
							c.Tenants = []string{homes[1-i]}
						}
					})
					n.iqn = iqn
					_, err := server.Do(homes[i], http.MethodPost, "/initiators", map[string]any{"id": iqn, "name": InitiatorName("kubernetes", "node-a")})
					require.NoError(t, err)
					return n
				}
				ours, theirs := in(0, "iqn.1993-08.org.debian:01:ours"), in(1, "iqn.1993-08.org.debian:01:theirs")
				options := optionsUnder("pv-1", "vol-1")
				theirs.ask(t, "attach", options, "node-a")
				ours.ask(t, "detach", "pv-1", "node-a")
				require.Equal(t, []string{theirs.iqn}, letInOf(t, server, homes[1], "vol-1"), "a node of another cluster lost its claim")

				ours.ask(t, "attach", options, "node-a")
				require.Equal(t, []string{ours.iqn}, letInOf(t, server, homes[0], "vol-1"))
				ours.ask(t, "detach", "pv-1", "node-a")
				require.Empty(t, letInOf(t, server, homes[0], "vol-1"))
				require.Equal(t, []string{theirs.iqn}, letInOf(t, server, homes[1], "vol-1"), "a node of another cluster lost its claim")
				theirs.ask(t, "detach", "pv-1", "node-a")
				require.Empty(t, letInOf(t, server, homes[1], "vol-1"))
			})
		}
	}
}

// What a tenant inherits may be this cluster's: where detach does not look it cannot tell.
func TestDetachNamesTheTenantWhereItDoesNotLook(t *testing.T) {
	server := withTenants(t, "dev")
	parent, child := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-a", inTenant("/root/dev"))
	parent.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
	for _, n := range []*node{parent, child} {
		n.forbids("/initiator_groups", "all", http.StatusNotFound)
	}
	message := child.refused(t, "detach", "pv-1", "node-a")
	require.Contains(t, message, "is in tenant /root, which is not among those that are searched (/root/dev): add it to tenants in")
	parent.ask(t, "detach", "pv-1", "node-a")
}

// Two clusters of one name with identities of their own share an array, a tenant and even a volume: each has its own claims.
func TestClaimsOfTwoClustersOfOneNameAreKeptApart(t *testing.T) {
	server := array(t)
	of := func(id, name string) *node {
		return newNode(t, server, name, func(c *Config) { c.ClusterID = id }).registered(t)
	}
	ours, theirs := of("id-1", "node-a"), of("id-2", "node-b")
	options := optionsUnder("pv-1", "vol-1")
	theirs.ask(t, "attach", options, "node-b")
	require.Contains(t, ours.refused(t, "attach", options, "node-a"), "by another PersistentVolume or cluster")
	require.False(t, *ours.ask(t, "isattached", options, "node-b").Attached, "the claim is not this cluster's")
	ours.ask(t, "detach", "pv-1", "node-b")
	require.Equal(t, []string{theirs.iqn}, letIn(t, server, "vol-1"), "a cluster took the claim of another one away")
	theirs.ask(t, "detach", "pv-1", "node-b")
	ours.ask(t, "attach", options, "node-a")
	require.Contains(t, theirs.refused(t, "attach", options, "node-b"), "by another PersistentVolume or cluster")
}

// forbids is a user who may not do something that GET requests to a path do, in a tenant if one is given.
func (n *node) forbids(path, tenant string, status int) {
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodGet && r.URL.Path == "/v2.2"+path && (tenant == "" || r.Header.Get("tenant") == tenant) {
			return answered(r, status, `{"name":"PermissionDeniedError","message":"you may not"}`), nil
		}
		return array.RoundTrip(r)
	})
}

func TestDetachFindsClaimsInWhateverTenant(t *testing.T) {
	tests := map[string]struct {
		forbids func(n *node)
		tenants []string
	}{
		"all tenants at once": {func(*node) {}, nil},
		"one after the other": {func(n *node) { n.forbids("/initiator_groups", "all", http.StatusNotFound) }, nil},
		"those of the configuration": {func(n *node) {
			n.forbids("/initiator_groups", "all", http.StatusNotFound)
			n.forbids("/tenants", "", http.StatusForbidden)
		}, []string{"dev", "/root/prod"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := withTenants(t, "dev", "prod")
			n := newNode(t, server, "node-a", func(c *Config) { c.Tenants = test.tenants }).registered(t)
			test.forbids(n)
			for _, tenant := range []string{"root", "dev", "prod"} {
				options := optionsIn(tenant, "pv-1", "vol-1")
				n.ask(t, "attach", options, "node-a")
				require.True(t, *n.ask(t, "isattached", options, "node-a").Attached)
				n.ask(t, "detach", "pv-1", "node-a")
				require.False(t, *n.ask(t, "isattached", options, "node-a").Attached, "the claim in tenant %s was not found", tenant)
			}
			// In several tenants at once: a PersistentVolume was made again while it was attached.
			for _, tenant := range []string{"root", "dev", "prod"} {
				n.ask(t, "attach", optionsIn(tenant, "pv-1", "vol-1"), "node-a")
			}
			n.ask(t, "detach", "pv-1", "node-a")
			for _, tenant := range []string{"/root", "/root/dev", "/root/prod"} {
				require.Empty(t, letInOf(t, server, tenant, "vol-1"), tenant)
			}
		})
	}
}

// A user may be allowed to see some tenants only. What detach would not find is not attached.
func TestAttachInATenantWhereDetachWouldNotLook(t *testing.T) {
	tests := map[string]struct {
		tenants []string
		tenant  string
		refused bool
	}{
		"the configured one":             {nil, "root", false},
		"none is listed":                 {nil, "dev", true},
		"one that is listed":             {[]string{"dev"}, "dev", false},
		"one that is listed by its path": {[]string{"/root/dev"}, "dev", false},
		"one that is not":                {[]string{"prod"}, "dev", true},
		"there are none beside":          {[]string{}, "dev", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := withTenants(t, "dev", "prod")
			n := newNode(t, server, "node-a", func(c *Config) { c.Tenants, c.Path = test.tenants, "/etc/datera/datera-config" }).registered(t)
			n.forbids("/initiator_groups", "all", http.StatusNotFound)
			n.forbids("/tenants", "", http.StatusForbidden)
			options := optionsIn(test.tenant, "pv-1", "vol-1")
			if !test.refused {
				n.ask(t, "attach", options, "node-a")
				n.ask(t, "detach", "pv-1", "node-a")
				require.False(t, *n.ask(t, "isattached", options, "node-a").Attached)
				return
			}
			message := n.refused(t, "attach", options, "node-a")
			require.Contains(t, message, "volume vol-1 is in tenant /root/dev")
			require.Contains(t, message, "add the tenant to tenants in /etc/datera/datera-config")
			ai, found := server.AppInstance("/root/dev", "vol-1")
			require.True(t, !found || len(ai.Allowed) == 0, "a claim that no detach would find")
		})
	}
}

// A request to list tenants that fails is no list of tenants.
func TestDetachFailsWhereItCannotLook(t *testing.T) {
	for name, forbids := range map[string]func(n *node){
		"the list of tenants fails": func(n *node) {
			n.forbids("/initiator_groups", "all", http.StatusNotFound)
			n.forbids("/tenants", "", http.StatusInternalServerError)
		},
		"the groups of a tenant": func(n *node) {
			n.forbids("/initiator_groups", "all", http.StatusNotFound)
			n.forbids("/initiator_groups", "/root/dev", http.StatusForbidden)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := withTenants(t, "dev")
			n := newNode(t, server, "node-a").registered(t)
			n.ask(t, "attach", optionsIn("dev", "pv-1", "vol-1"), "node-a")
			forbids(n)
			n.refused(t, "detach", "pv-1", "node-a")
			require.Equal(t, []string{n.iqn}, letInOf(t, server, "/root/dev", "vol-1"))
		})
	}
}
