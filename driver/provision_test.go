package driver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

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
			map[string]string{optSource: originPath}, true},
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
			synctest.Test(t, func(t *testing.T) {
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
		})
	}
}

func TestCloneGrowsToItsSizeAndGetsItsLimits(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	makeVolume(t, n, "origin")
	n.ask(t, "attach", optionsWith(map[string]string{
		optSource: originPath, optSize: "150", optMaxIOPS: "500",
	}), "node-a")
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	volume, err := ai.Volume()
	require.NoError(t, err)
	require.EqualValues(t, 150, volume.SizeGiB)
	require.EqualValues(t, 500, volume.PerformancePolicy.TotalIOPSMax)
}

const originPath = "/app_instances/origin/storage_instances/storage-1/volumes/volume-1"

// cloneOfOrigin is a clone with limits that is not there yet.
func cloneOfOrigin(t *testing.T) (server *dateratest.Server, n *node, options string, volume Volume) {
	t.Helper()
	server = array(t)
	n = newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "origin")
	options = optionsWith(map[string]string{optSource: originPath, optMaxIOPS: "500"})
	volume, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	return server, n, options, volume
}

// Limits are set once, before the first node has the clone, also when the call that made it was killed: who changes them on
// the array later has the last word.
func TestCloneGetsItsLimitsAfterACrash(t *testing.T) {
	server, n, options, volume := cloneOfOrigin(t)
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
}

// A volume is restored from another one under its name: the group of that name says nothing about the new volume.
func TestCloneUnderANameThatWasAttachedGetsItsLimits(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsWith(map[string]string{optVolumeID: "origin"}), "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	for _, made := range []string{"by this call", "by one that was killed"} {
		options := optionsWith(map[string]string{
			optVolumeID: strings.ReplaceAll(made, " ", "-"), optMaxIOPS: "500", optSource: originPath,
		})
		volume, err := ParseVolume(options, "kubernetes")
		require.NoError(t, err)
		if made != "by this call" {
			_, _, err := mustArray(t, n).CreateAppInstance(t.Context(), n.request(volume))
			require.NoError(t, err)
		}
		n.ask(t, "attach", options, "node-a")
		n.ask(t, "detach", "pv-datera-0", "node-a")
		clone, _ := server.AppInstance("/root", volume.AppInstance)
		require.Equal(t, 500, clone.TotalIOPS, "made "+made)
	}
}

func TestAForeignCloneKeepsItsLimits(t *testing.T) {
	server, n, options, volume := cloneOfOrigin(t)
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
