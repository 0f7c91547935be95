package driver

import (
	"context"
	"testing"

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
