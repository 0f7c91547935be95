package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

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

func TestAttachProvisionsWhatTheOptionsSay(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", func(c *Config) {
		c.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1", MutualUsername: "array-user", MutualPassword: "array-secret"}
	}).registered(t)
	n.ask(t, "attach", optionsWith(map[string]string{optReplica: "2", optMaxIOPS: "1000", optMaxBandwidth: "10240", optPlacementMode: "all_flash", optIPPool: "default"}), "node-a")
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	volume, err := ai.Volume()
	require.NoError(t, err)
	require.EqualValues(t, 100, volume.SizeGiB)
	require.Equal(t, 2, volume.ReplicaCount)
	require.Equal(t, "all_flash", volume.PlacementMode)
	require.EqualValues(t, 1000, volume.PerformancePolicy.TotalIOPSMax)
	require.EqualValues(t, 10240, volume.PerformancePolicy.TotalBandwidthMax)
	require.Equal(t, "deny_all", ai.AccessControlMode)
	require.Equal(t, []string{datera.AuthMutualCHAP, "chap-user", "array-user"}, []string{instance.Auth.Type, instance.Auth.TargetUserName, instance.Auth.InitiatorUserName})
	require.Len(t, instance.ACL.InitiatorGroups, 1)
	require.Empty(t, instance.ACL.Initiators)
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

func TestAttachMarksVolumesWithData(t *testing.T) {
	tests := map[string]struct {
		prepare func(*testing.T, *dateratest.Server, *node)
		options map[string]string
		never   bool
	}{
		"made just now":       {func(*testing.T, *dateratest.Server, *node) {}, nil, false},
		"made by others, new": {func(t *testing.T, s *dateratest.Server, n *node) { makeVolume(t, n, "kube-pv-datera-0") }, nil, false},
		"blocks in use": {func(t *testing.T, s *dateratest.Server, n *node) {
			makeVolume(t, n, "kube-pv-datera-0")
			require.NoError(t, s.SetCapacityInUse("kube-pv-datera-0", 1))
		}, nil, true},
		"noted as formatted": {func(t *testing.T, s *dateratest.Server, n *node) {
			makeVolume(t, n, "kube-pv-datera-0")
			require.NoError(t, mustArray(t, n).SetMetadata(t.Context(), "kube-pv-datera-0", map[string]string{"formatted": "true"}))
		}, nil, true},
		"a clone": {func(t *testing.T, s *dateratest.Server, n *node) { makeVolume(t, n, "origin") },
			map[string]string{optSource: "/app_instances/origin/storage_instances/storage-1/volumes/volume-1"}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a").registered(t)
			test.prepare(t, server, n)
			device := n.ask(t, "attach", optionsWith(test.options), "node-a").Device
			require.Equal(t, test.never, strings.Contains(device, "format=never"), device)
		})
	}
}

// makeVolume makes a volume as another driver would.
func makeVolume(t *testing.T, n *node, name string) {
	t.Helper()
	_, _, err := mustArray(t, n).CreateAppInstance(t.Context(), datera.AppInstanceRequest{Name: name, CreateMode: "normal", SizeGiB: 100, ReplicaCount: 1})
	require.NoError(t, err)
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

func TestAttachWaitsForTheArray(t *testing.T) {
	tests := map[string]struct {
		fault dateratest.Fault
		says  string // "" for success
	}{
		"late":                {dateratest.Fault{Name: dateratest.OpState, Value: "100ms"}, ""},
		"addresses come late": {dateratest.Fault{Name: dateratest.AccessLate, Value: "100ms"}, ""},
		"never":               {dateratest.Fault{Name: dateratest.OpState, Value: "never"}, "portals: look at the storage instance on the array; the call is tried again"},
		"failed":              {dateratest.Fault{Name: dateratest.OpState, Value: "failed"}, `its op_state is "failed"`},
		"a lost answer":       {dateratest.Fault{Name: dateratest.LoseAnswer, Method: "POST", Path: "^/app_instances$"}, ""},
		"busy for a moment":   {dateratest.Fault{Name: dateratest.Unavailable, Value: "2"}, ""},
		"expired keys":        {dateratest.Fault{Name: dateratest.Expire}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a").registered(t)
			require.NoError(t, server.SetFault(test.fault))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			reply := n.Serve(ctx, []string{"attach", optionsWith(nil), "node-a"})
			if test.says == "" {
				require.Equal(t, Success, reply.Status, reply.Message)
				return
			}
			require.Equal(t, Failure, reply.Status)
			require.Contains(t, reply.Message, test.says)
			require.Contains(t, reply.Message, "kube-pv-datera-0")
		})
	}
}

func TestCloneGrowsToItsSizeAndGetsItsLimits(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	makeVolume(t, n, "origin")
	n.ask(t, "attach", optionsWith(map[string]string{
		optSource: "/app_instances/origin/storage_instances/storage-1/volumes/volume-1", optSize: "150", optMaxIOPS: "500",
	}), "node-a")
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	volume, err := ai.Volume()
	require.NoError(t, err)
	require.EqualValues(t, 150, volume.SizeGiB)
	require.EqualValues(t, 500, volume.PerformancePolicy.TotalIOPSMax)
}

// Limits are set once, before the first node has the clone, also when the call that made it was killed: who changes them on
// the array later has the last word.
func TestCloneGetsItsLimitsAfterACrash(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "origin")
	options := optionsWith(map[string]string{optSource: "/app_instances/origin/storage_instances/storage-1/volumes/volume-1", optMaxIOPS: "500"})
	volume, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	a := mustArray(t, n)
	ai, _, err := a.CreateAppInstance(t.Context(), n.request(volume)) // and no further
	require.NoError(t, err)
	limit := func() int {
		made, _ := server.AppInstance("/root", volume.AppInstance)
		return made.TotalIOPS
	}
	require.NotEqual(t, 500, limit())
	n.ask(t, "attach", options, "node-a")
	require.Equal(t, 500, limit())

	onArray, err := ai.Volume()
	require.NoError(t, err)
	require.NoError(t, a.SetPerformancePolicy(t.Context(), onArray.Path, datera.PerformancePolicy{TotalIOPSMax: 900}))
	n.ask(t, "detach", "pv-datera-0", "node-a")
	n.ask(t, "attach", options, "node-a")
	require.Equal(t, 900, limit(), "what was changed on the array was overwritten")

	n.ask(t, "detach", "pv-datera-0", "node-a")
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	require.NoError(t, a.RemoveInitiatorGroup(t.Context(), instance.Path, n.groupName("pv-datera-0")))
	n.ask(t, "attach", options, "node-a")
	require.Equal(t, 900, limit(), "a volume that was used is taken for a new one")
}

func TestAForeignCloneKeepsItsLimits(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "origin")
	options := optionsWith(map[string]string{optSource: "/app_instances/origin/storage_instances/storage-1/volumes/volume-1", optMaxIOPS: "500"})
	volume, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	request := n.request(volume)
	request.Descr = "made by an administrator"
	a := mustArray(t, n)
	ai, _, err := a.CreateAppInstance(t.Context(), request)
	require.NoError(t, err)
	onArray, err := ai.Volume()
	require.NoError(t, err)
	require.NoError(t, a.SetPerformancePolicy(t.Context(), onArray.Path, datera.PerformancePolicy{TotalIOPSMax: 900}))
	n.ask(t, "attach", options, "node-a")
	made, _ := server.AppInstance("/root", ai.Name)
	require.Equal(t, 900, made.TotalIOPS)
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
			open := n.OpenArray
			n.OpenArray = func(scheme string, credentials Credentials, tenant string) (Array, error) {
				real, err := open(scheme, credentials, tenant)
				return forgetful{real}, err
			}
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
		require.ErrorContains(t, err, "with initiator "+former+" already")
		require.ErrorContains(t, err, "delete "+former+" on the array")
		require.ErrorContains(t, err, "initiator is "+n.iqn+" now")
	}
	require.NotContains(t, server.Initiators("/root"), n.iqn)

	require.NoError(t, server.RegisterInitiator(n.iqn, "k8s_kubernetes_node-a")) // by somebody else
	_, err = n.Register(t.Context(), "node-a", "")
	require.ErrorContains(t, err, former)
	require.ErrorContains(t, err, n.iqn)
	require.ErrorContains(t, err, "same name")
}

func TestDelete(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	parse := func(changes map[string]string) Volume {
		volume, err := ParseVolume(optionsWith(changes), "kubernetes")
		require.NoError(t, err)
		return volume
	}
	never := parse(map[string]string{optRetainPolicy: "never"})
	n.ask(t, "attach", optionsWith(nil), "node-a")
	require.ErrorContains(t, n.Delete(t.Context(), parse(nil)), "retainPolicy")
	require.ErrorContains(t, n.Delete(t.Context(), never), "is in use by "+n.iqn)
	n.ask(t, "detach", "pv-datera-0", "node-a")
	allowForeign(t, n, server, "iqn.1993-08.org.debian:01:foreign")
	setActiveInitiators(t, server, "kube-pv-datera-0", "iqn.1993-08.org.debian:01:foreign")
	require.ErrorContains(t, n.Delete(t.Context(), never), "foreign", "a volume with a session was deleted")
	setActiveInitiators(t, server, "kube-pv-datera-0")
	require.NoError(t, n.Delete(t.Context(), never))
	_, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.ErrorIs(t, err, datera.ErrNotFound)
	require.NoError(t, n.Delete(t.Context(), never), "deleting what is gone is done")
}

// A grant without a session counts, too, whoever gave it: its node may log in at any moment.
func TestDeleteLeavesAVolumeThatAnotherClusterHas(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	other := newNode(t, server, "node-b", func(c *Config) { c.Cluster = "other" }).registered(t)
	never, err := ParseVolume(optionsWith(map[string]string{optRetainPolicy: "never"}), "kubernetes")
	require.NoError(t, err)
	other.ask(t, "attach", optionsWith(nil), "node-b")
	require.ErrorContains(t, n.Delete(t.Context(), never), "is in use by "+other.iqn)
	other.ask(t, "detach", "pv-datera-0", "node-b")
	require.NoError(t, n.Delete(t.Context(), never))
}

// A PersistentVolume may have the name that another one's volume has on the array.
func TestDeleteLeavesAVolumeOfAnotherPersistentVolume(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	n.ask(t, "attach", optionsWith(map[string]string{keyName: "vol-1", optVolumeID: "vol-1"}), "node-a")
	never, err := ParseVolume(optionsWith(map[string]string{optVolumeID: "vol-1", optRetainPolicy: "never"}), "kubernetes")
	require.NoError(t, err)
	require.ErrorContains(t, n.Delete(t.Context(), never), "is in use by "+n.iqn)
}

// Who deletes from a place in another attach mode is told where to do it.
func TestDeleteNamesTheModeThatLeftAGrant(t *testing.T) {
	server := array(t)
	direct := newNode(t, server, "node-a", attachMode(AttachNone))
	options := optionsWith(map[string]string{optRetainPolicy: "never"})
	require.Equal(t, Success, direct.ask(t, "mount", podPath, options).Status)
	never, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	elsewhere := newNode(t, server, "node-b")
	require.ErrorContains(t, elsewhere.Delete(t.Context(), never), `is in use by `+direct.iqn+`: delete the pods that use it first; nobody has a session, so if attach mode none left this grant, delete the volume where the configuration says "attach": "none"`)
	setActiveInitiators(t, server, "kube-pv-datera-0", direct.iqn)
	require.NotContains(t, elsewhere.Delete(t.Context(), never).Error(), "nobody has a session")
}

// A node that is dead gives nothing back.
func TestDeleteInModeNoneAfterTheNodeDied(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	options := optionsWith(map[string]string{optVolumeID: "pv-datera-0", optRetainPolicy: "never"})
	n.ask(t, "mount", podPath, options)
	never, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	require.NoError(t, n.Delete(t.Context(), never))
}

// allowForeign lets an initiator in that the driver knows nothing of.
func allowForeign(t *testing.T, n *node, server *dateratest.Server, iqn string) {
	t.Helper()
	require.NoError(t, server.RegisterInitiator(iqn, "foreign"))
	a := mustArray(t, n)
	_, _, err := a.CreateInitiatorGroup(t.Context(), "foreign-group", iqn)
	require.NoError(t, err)
	ai, err := a.AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	require.NoError(t, a.AddInitiatorGroup(t.Context(), instance.Path, "foreign-group"))
}

// An app instance that an administrator gave a second target is one volume to whoever deletes it.
func TestDeleteLooksAtEveryTarget(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	n.ask(t, "attach", optionsWith(nil), "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	n.over(func(real Array) Array { return twoTargets{real} })
	never, err := ParseVolume(optionsWith(map[string]string{optRetainPolicy: "never"}), "kubernetes")
	require.NoError(t, err)
	require.ErrorContains(t, n.Delete(t.Context(), never), "is in use by iqn.1993-08.org.debian:01:logs")
}

// twoTargets is an array whose app instances have a target besides that somebody uses.
type twoTargets struct{ Array }

func (a twoTargets) AppInstance(ctx context.Context, name string) (*datera.AppInstance, error) {
	ai, err := a.Array.AppInstance(ctx, name)
	if err == nil {
		ai.StorageInstances = append(ai.StorageInstances, datera.StorageInstance{Name: "logs", ActiveInitiators: []string{"iqn.1993-08.org.debian:01:logs"}})
	}
	return ai, err
}
