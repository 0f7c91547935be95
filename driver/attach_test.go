package driver

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

func TestAttachBringsAVolumeOnlineAndGivesItCHAP(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsWith(nil), "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	_, err := mustArray(t, n).SetAdminState(t.Context(), "kube-pv-datera-0", datera.AdminOffline, true)
	require.NoError(t, err)
	n.Config.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1"}
	n.ask(t, "attach", optionsWith(nil), "node-a")
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	require.Equal(t, datera.AdminOnline, ai.AdminState)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	require.Equal(t, datera.AuthCHAP, instance.Auth.Type)
}

func TestAttachRefuses(t *testing.T) {
	tests := map[string]struct {
		change  func(*Config)
		options map[string]string
		prepare func(*testing.T, *node)
		says    []string
	}{
		"a node that is not registered": {nil, nil, func(t *testing.T, n *node) { n.name = "node-z" }, []string{"node-z is not registered", "iscsi register node-z"}},
		"a node's bad name":             {nil, nil, func(t *testing.T, n *node) { n.name = "../x" }, []string{"node name", "../x"}},
		"a wrong password":              {func(c *Config) { c.Password = "canary-wrong" }, nil, nil, []string{"admin"}},
		"a smaller volume that exists": {nil, map[string]string{optSize: "200"}, func(t *testing.T, n *node) {
			n.ask(t, "attach", optionsWith(nil), "node-a")
		}, []string{"kube-pv-datera-0", "100 GiB", `size is "200"`, "accepted is 100 or less"}},
		"an unknown template": {nil, map[string]string{optTemplate: "gold"}, nil, []string{`template "gold"`}},
		"an unknown pool":     {nil, map[string]string{optIPPool: "fast"}, nil, []string{`ipPool "fast"`}},
		"an unknown tenant":   {nil, map[string]string{optTenant: "nobody"}, nil, []string{"/root/nobody"}},
		"an unknown tenant of the configuration": {func(c *Config) { c.Tenant, c.Path = "/root/nobody", "/etc/datera/datera-config" }, nil, nil,
			[]string{"the array does not know tenant /root/nobody: correct tenant in /etc/datera/datera-config"}},
		"an unknown source":    {nil, map[string]string{optSource: "/app_instances/gone/storage_instances/storage-1/volumes/volume-1"}, nil, []string{"volumeSource", "/app_instances/gone/"}},
		"an unreachable array": {nil, nil, func(t *testing.T, n *node) { n.way = refusing{} }, []string{"http://sim.test:7717", "connection refused"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, array(t), "node-a").registered(t)
				if test.prepare != nil {
					test.prepare(t, n)
				}
				if test.change != nil {
					test.change(&n.Config)
				}
				ctx, cancel := shortly(t)
				defer cancel()
				reply := n.Serve(ctx, []string{"attach", optionsWith(test.options), n.name})
				require.Equal(t, Failure, reply.Status)
				for _, words := range test.says {
					require.Contains(t, reply.Message, words)
				}
				require.NotContains(t, reply.Message, "canary")
			})
		})
	}
}

func TestOnlyOneNodeWritesHoweverManyRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		var nodes []*node
		for _, name := range []string{"node-a", "node-b", "node-c"} {
			nodes = append(nodes, newNode(t, server, name, inMemory(t)).registered(t))
		}
		options := optionsWith(nil)
		for round := range 20 {
			replies := together(t, nodes, func(n *node) []string { return []string{"attach", options, n.name} })
			var winners, members []string
			for i, reply := range replies {
				if reply.Status == Success {
					winners, members = append(winners, nodes[i].name), append(members, nodes[i].iqn)
				} else {
					require.Contains(t, reply.Message, "in use by", "round %d", round)
				}
			}
			require.LessOrEqual(t, len(winners), 1, "round %d: %v", round, replies)
			require.Equal(t, members, letIn(t, server, "kube-pv-datera-0"), "round %d: a loser has a claim", round)
			if len(winners) == 0 { // each was in another's way: Kubernetes repeats the calls
				nodes[round%3].ask(t, "attach", options, nodes[round%3].name)
				winners = []string{nodes[round%3].name}
			}
			nodes[0].ask(t, "detach", "pv-datera-0", winners[0])
		}
	})
}

func TestReadersShareAndWritersDoNot(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	reading, writing := optionsWith(map[string]string{keyReadWrite: "ro"}), optionsWith(nil)

	a.ask(t, "attach", reading, "node-a")
	b.ask(t, "attach", reading, "node-b")
	require.Contains(t, a.refused(t, "attach", writing, "node-a"), "node node-b")
	b.ask(t, "detach", "pv-datera-0", "node-b")
	a.ask(t, "attach", writing, "node-a") // the only reader may become the writer
	require.Contains(t, b.refused(t, "attach", reading, "node-b"), "cannot be attached read-only to node node-b: it is in use by node node-a ("+a.iqn+")")
	require.True(t, *a.ask(t, "isattached", writing, "node-a").Attached)
	a.ask(t, "detach", "pv-datera-0", "node-a")
	require.Empty(t, letIn(t, server, "kube-pv-datera-0"), "a claim was left behind")
}

func TestAttachGoesOnWhereACrashCutItOff(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	// The group is there with its member, but the ACL policy does not refer to it yet.
	makeVolume(t, n, "kube-pv-datera-0")
	group := groupName("kubernetes", "pv-datera-0", idOf(t, server, "kube-pv-datera-0"), "rw")
	_, _, err := mustArray(t, n).CreateInitiatorGroup(t.Context(), group, n.iqn)
	require.NoError(t, err)
	n.ask(t, "attach", options, "node-a")
	require.Equal(t, []string{group}, groupsOf(t, server, "/root", "kube-pv-datera-0"))
	require.Equal(t, []string{n.iqn}, letIn(t, server, "kube-pv-datera-0"))
}

func TestDetachFindsOtherTenants(t *testing.T) {
	server := array(t)
	_, err := server.Do("/root", "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(map[string]string{optTenant: "dev"})
	n.ask(t, "attach", options, "node-a")
	require.True(t, *n.ask(t, "isattached", options, "node-a").Attached)
	n.ask(t, "detach", "pv-datera-0", "node-a")
	require.False(t, *n.ask(t, "isattached", options, "node-a").Attached, "the grant in the other tenant was not found")
}

func TestDetachOfSomebodyElse(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsWith(nil), "node-a")
	b.ask(t, "detach", "pv-datera-0", "node-b")
	require.True(t, *a.ask(t, "isattached", optionsWith(nil), "node-a").Attached, "detaching one node took another's access")
	require.Contains(t, a.refused(t, "detach", "../etc", "node-a"), "volume name")
	require.Contains(t, a.refused(t, "detach", "pv-datera-0", "a b"), "node name")
}

func TestNodeWithANewInitiatorName(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachKubelet)).registered(t)
	n.iqn = "iqn.1993-08.org.debian:01:reinstalled"
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "iqn.1993-08.org.debian:01:reinstalled")
	n.fails["name"] = errors.New("initiatorname.iscsi is missing")
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "initiatorname.iscsi is missing")
}

func TestTwoNodesWithOneInitiatorName(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	clone := newNode(t, server, "node-b")
	clone.iqn = a.iqn
	_, err := clone.Register(t.Context(), "node-b", "")
	require.ErrorContains(t, err, a.iqn)
	require.ErrorContains(t, err, "k8s_kubernetes_node-a", "the message must say who has that initiator name already")
}

func TestRegisterMakesNoSecondInitiatorOfAName(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	former := n.iqn
	_, err := n.Register(t.Context(), "node-a", "")
	require.NoError(t, err, "a repetition is no conflict")
	n.iqn = "iqn.1993-08.org.debian:01:reinstalled"
	for _, iqn := range []string{"", n.iqn} {
		_, err = n.Register(t.Context(), "node-a", iqn)
		require.ErrorContains(t, err, "is registered with initiator "+former+", this node's is "+n.iqn)
		require.ErrorContains(t, err, "delete initiator "+former+" on the array")
	}
	require.NotContains(t, server.Initiators("/root"), n.iqn)

	require.NoError(t, server.RegisterInitiator(n.iqn, "k8s_kubernetes_node-a")) // by somebody else
	_, err = n.Register(t.Context(), "node-a", "")
	require.ErrorContains(t, err, former)
	require.ErrorContains(t, err, n.iqn)
	require.ErrorContains(t, err, "same name")
}
