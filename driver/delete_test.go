package driver

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

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
	n.Config.Exempt = []string{"foreign-group"}
	allowForeign(t, n, server, "iqn.1993-08.org.debian:01:foreign")
	require.NoError(t, n.Delete(t.Context(), never))
	_, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.ErrorIs(t, err, datera.ErrNotFound)
	require.NoError(t, n.Delete(t.Context(), never), "deleting what is gone is done")
}

// A claim without a session counts, too, whoever made it: its node may log in at any moment.
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
func TestDeleteNamesTheModeThatLeftAClaim(t *testing.T) {
	server := array(t)
	direct := newNode(t, server, "node-a", attachMode(AttachNone))
	options := optionsWith(map[string]string{optRetainPolicy: "never"})
	require.Equal(t, Success, direct.ask(t, "mount", podPath, options).Status)
	never, err := ParseVolume(options, "kubernetes")
	require.NoError(t, err)
	elsewhere := newNode(t, server, "node-b")
	require.ErrorContains(t, elsewhere.Delete(t.Context(), never), `is in use by `+direct.iqn+`: delete the pods that use it first; if attach mode none left these claims, which have no session, delete the volume where the configuration says "attach": "none"`)
	setActiveInitiators(t, server, "kube-pv-datera-0", direct.iqn)
	require.NotContains(t, elsewhere.Delete(t.Context(), never).Error(), "have no session")
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
	if _, known := server.Initiators("/root")[iqn]; !known {
		require.NoError(t, server.RegisterInitiator(iqn, "foreign"))
	}
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
		ai.StorageInstances = append(ai.StorageInstances, datera.StorageInstance{
			Name: "logs", ActiveInitiators: []string{"iqn.1993-08.org.debian:01:logs"},
			ACL: datera.ACL{Initiators: []datera.Reference{}, InitiatorGroups: []datera.Reference{}},
		})
	}
	return ai, err
}

// A delete that was killed, at whatever request, is finished when it is repeated; until then the volume is whole, or gone, and
// whoever comes to one that is still there gets it.
func TestDeleteThatWasKilledIsFinished(t *testing.T) {
	for _, comes := range []bool{false, true} {
		for at, dead := 1, true; dead; at++ {
			way := fmt.Sprintf("killed right after request %d", at)
			server := array(t)
			n := newNode(t, server, "node-a", inMemory(t)).registered(t)
			for _, options := range []string{optionsUnder("pv-1", "vol-1"), readingUnder("pv-1", "vol-1")} {
				n.ask(t, "attach", options, "node-a")
				n.ask(t, "detach", "pv-1", "node-a")
			}
			groups := groupsOf(t, server, "/root", "vol-1")
			require.Len(t, groups, 2)
			victim := n.again(t, server)
			killing := &killing{array: server.Transport(), at: at, behind: true}
			victim.way = killing
			err := victim.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1"))
			dead = killing.dead()
			require.Equal(t, !dead, err == nil, "%s: %v", way, err)
			require.True(t, dead || at > 6, at)
			if _, there := server.AppInstance("/root", "vol-1"); there && comes {
				n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
				require.ErrorContains(t, n.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")), "is in use by "+n.iqn, way)
				n.ask(t, "detach", "pv-1", "node-a")
			}
			require.NoError(t, n.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")), way)
			_, there := server.AppInstance("/root", "vol-1")
			require.False(t, there, way)
			for _, group := range groups { // what a kill after the app instance has left grants nothing, and its name is never used again
				members, _ := server.InitiatorGroup("/root", group)
				require.Empty(t, members, way)
			}
			n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a") // another volume of this name
			require.NotContains(t, groups, groupsOf(t, server, "/root", "vol-1")[0], way)
		}
	}
}

// Of two deletes at once one waits for the other, whichever PersistentVolumes name the volume: none brings back what the other
// took offline.
func TestTwoDeletesAtOnce(t *testing.T) {
	for _, other := range []string{"pv-1", "pv-2"} {
		synctest.Test(t, func(t *testing.T) {
			server := array(t)
			first := newNode(t, server, "node-a", inMemory(t)).registered(t)
			first.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
			first.ask(t, "detach", "pv-1", "node-a")
			second := first.again(t, server)
			made := second.meets(nil)
			second.ask(t, "isattached", optionsUnder("pv-1", "vol-1"), "node-a")
			before, failed := made(), make(chan error, 1)
			comes := sync.OnceFunc(func() {
				go func() { failed <- second.Delete(context.WithoutCancel(t.Context()), volumeUnder(t, other, "vol-1")) }()
				synctest.Wait()
				assert.Equal(t, before, made(), "it does not wait")
			})
			first.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
				if r.Method == http.MethodDelete {
					comes()
				}
				return array.RoundTrip(r)
			})
			require.NoError(t, first.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")))
			require.NoError(t, <-failed)
			require.Empty(t, server.AppInstances("/root"))
		})
	}
}

// A delete takes its own volume's groups along, and no other one, whatever the volume's policy refers to.
func TestDeleteLeavesTheGroupsOfOthers(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
	n.ask(t, "detach", "pv-1", "node-a")
	own := groupsOf(t, server, "/root", "vol-1")
	others := []string{groupName("kubernetes", "pv-2", "00000000-0000-0000-0000-000000000000", "rw"), "backup-hosts", "k8s_kubernetes_pv-1"}
	for _, group := range others {
		_, _, err := mustArray(t, n).CreateInitiatorGroup(t.Context(), group)
		require.NoError(t, err)
		require.NoError(t, mustArray(t, n).AddInitiatorGroup(t.Context(), "/app_instances/"+idOf(t, server, "vol-1")+"/storage_instances/storage-1", group))
	}
	require.NoError(t, n.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")))
	for _, group := range others {
		_, there := server.InitiatorGroup("/root", group)
		require.True(t, there, "group %s is gone", group)
	}
	for _, group := range own {
		_, left := server.InitiatorGroup("/root", group)
		require.False(t, left, "the volume's own group %s is still there", group)
	}
}

// The delete has read that no node has the volume; then a node comes, at whatever moment: it keeps what it was told, or is refused.
func TestDeleteWhileANodeComes(t *testing.T) {
	for at, came := 1, true; came; at++ {
		came = false
		server := array(t)
		n, control := newNode(t, server, "node-a", inMemory(t)).registered(t), newNode(t, server, "control", inMemory(t))
		n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
		n.ask(t, "detach", "pv-1", "node-a")
		id := idOf(t, server, "vol-1")
		var told error
		control.meets(map[int]func(){at: func() {
			came = true
			told = n.try(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
		}})
		err := control.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1"))
		require.True(t, came || at > 6)
		require.True(t, came || err == nil)
		ai, there := server.AppInstance("/root", "vol-1")
		require.True(t, err == nil || there && ai.ID == id, "it came before request %d: %v", at, err)
		if came && told == nil {
			require.True(t, there, "it came before request %d, and what it was told that it has is gone", at)
			require.Equal(t, []string{n.iqn}, ai.Allowed, "it came before request %d", at)
			require.Equal(t, datera.AdminOnline, ai.AdminState, "it came before request %d, and cannot log in", at)
		}
	}
}

// An earlier delete was killed after it took the volume offline, and a node had just been let in.
func TestDeleteThatIsRefusedBringsTheVolumeOnline(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
	_, err := mustArray(t, n).SetAdminState(t.Context(), "vol-1", datera.AdminOffline, true)
	require.NoError(t, err)
	require.ErrorContains(t, n.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")), "is in use by "+n.iqn)
	ai, _ := server.AppInstance("/root", "vol-1")
	require.Equal(t, datera.AdminOnline, ai.AdminState)
}
