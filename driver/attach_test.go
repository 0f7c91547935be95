package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/testdata/budget"
)

// requests counts what the array was asked during do.
func requests(t *testing.T, server *dateratest.Server, do func()) int {
	t.Helper()
	server.ResetRequests()
	do()
	for _, request := range server.Requests() {
		t.Logf("%s %s -> %d", request.Method, request.Path, request.Status)
	}
	return len(server.Requests())
}

// What calls ask of the array is held to the README's table, exactly: a call that costs
// less than it says is a fault of the table.
func TestBudgetsOfRequests(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	spends := func(name string, args ...string) {
		t.Helper()
		made := requests(t, server, func() { n.ask(t, args...) })
		require.Equal(t, budget.Of(t, name).Requests, made, name)
	}
	grown := []string{"expandvolume", options, globalPath, "107374182401", "1"}

	require.NoError(t, os.RemoveAll(n.Config.RunDir)) // no session key, no hints
	spends("init", "init")
	spends("attach, first ever, with login", "attach", options, "node-a")
	spends("attach, repeated", "attach", options, "node-a")
	spends("isattached", "isattached", options, "node-a")
	n.hints().forget("pv-datera-0")
	spends("isattached, nothing known of the attach", "isattached", options, "node-a")
	spends("detach", "detach", "pv-datera-0", "node-a")
	spends("detach, repeated", "detach", "pv-datera-0", "node-a")
	spends("isattached", "isattached", options, "node-a")
	spends("attach, volume exists", "attach", options, "node-a")
	spends("expandvolume", grown...)
	spends("expandvolume, repeated", grown...)
}

func TestNodeCallsMakeNoRequest(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	device := n.ask(t, "attach", options, "node-a").Device
	require.Equal(t, 0, requests(t, server, func() {
		disk := n.ask(t, "waitforattach", device, options).Device
		n.ask(t, "mountdevice", globalPath, disk, options)
		n.ask(t, "mount", podPath, options)
		n.ask(t, "unmount", podPath)
		n.ask(t, "unmountdevice", globalPath)
	}))
}

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
		"an unreachable array": {func(c *Config) { c.ManagementIP = "127.0.0.1:1" }, map[string]string{optServer: "127.0.0.1:1"}, nil, []string{"127.0.0.1:1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a").registered(t)
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
	}
}

func TestOnlyOneNodeWritesHoweverManyRace(t *testing.T) {
	server := array(t)
	nodes := []*node{newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t), newNode(t, server, "node-c").registered(t)}
	options := optionsWith(nil)
	for round := range 20 {
		replies := make([]Reply, len(nodes))
		var group sync.WaitGroup
		for i, n := range nodes {
			group.Go(func() { replies[i] = n.Serve(t.Context(), []string{"attach", options, n.name}) })
		}
		group.Wait()
		var winners []string
		for i, reply := range replies {
			if reply.Status == Success {
				winners = append(winners, nodes[i].name)
			} else {
				require.Contains(t, reply.Message, "holds it", "round %d", round)
			}
		}
		require.Len(t, winners, 1, "round %d: %v", round, replies)
		state, _, err := nodes[0].lookForGrant(t.Context(), mustArray(t, nodes[0]), "pv-datera-0")
		require.NoError(t, err)
		require.Len(t, state.members, 1, "round %d: a loser is still in the group", round)
		nodes[0].ask(t, "detach", "pv-datera-0", winners[0])
	}
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
	require.Contains(t, b.refused(t, "attach", reading, "node-b"), "read-only to node node-b: node node-a")
	require.True(t, *a.ask(t, "isattached", writing, "node-a").Attached)
	a.ask(t, "detach", "pv-datera-0", "node-a")
	state, _, err := a.lookForGrant(t.Context(), mustArray(t, a), "pv-datera-0")
	require.NoError(t, err)
	require.Empty(t, state.all(), "a member or reader was left behind")
}

func TestAttachGoesOnWhereACrashCutItOff(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	// The group is there with its member, but the ACL policy does not refer to it yet.
	_, _, err := mustArray(t, n).CreateInitiatorGroup(t.Context(), n.groupName("pv-datera-0"), n.iqn)
	require.NoError(t, err)
	n.ask(t, "attach", options, "node-a")
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	require.True(t, instance.ACL.RefersTo(n.groupName("pv-datera-0")), "the volume's ACL policy does not refer to its group")
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

// forgetful is an array that does not know the initiators of its groups any more.
type forgetful struct{ Array }

func (forgetful) Initiator(_ context.Context, iqn string) (*datera.Initiator, error) {
	return nil, fmt.Errorf("initiator %s: %w", iqn, datera.ErrNotFound)
}

func TestDetachNamesTheGroupsOfAnInitiatorThatIsGone(t *testing.T) {
	for mode, groups := range map[string]string{"rw": "k8s_kubernetes_pv-datera-0", "ro": "k8s_kubernetes_pv-datera-0 and k8s-ro_kubernetes_pv-datera-0"} {
		t.Run(mode, func(t *testing.T) {
			n := newNode(t, array(t), "node-a").registered(t)
			n.ask(t, "attach", optionsWith(map[string]string{"kubernetes.io/readwrite": mode}), "node-a")
			n.over(func(real Array) Array { return forgetful{real} })
			message := n.refused(t, "detach", "pv-datera-0", "node-a")
			require.Contains(t, message, n.iqn+" may reach volume pv-datera-0, but ")
			require.True(t, strings.HasSuffix(message, "from initiator group "+groups), message)
		})
	}
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
