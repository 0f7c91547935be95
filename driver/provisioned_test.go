package driver

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

// claimed are the options of a volume of the provisioner, and the volume.
func claimed(t *testing.T, n *node, further map[string]string) (string, Volume) {
	t.Helper()
	options := map[string]string{optVolumeID: "k8s_kubernetes_pvc-1", optSize: "10", optProvisioned: "true"}
	for key, value := range further {
		options[key] = value
	}
	document := OptionsOf("pvc-1", "xfs", false, options, nil)
	volume, err := ParseVolume(document, n.Config.Cluster)
	require.NoError(t, err)
	return document, volume
}

func TestProvisionedVolumeIsAttached(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options, volume := claimed(t, n, nil)
	size, err := n.Provision(t.Context(), volume)
	require.NoError(t, err)
	require.EqualValues(t, 10, size)
	used, err := n.WasAttached(t.Context(), volume)
	require.NoError(t, err)
	require.False(t, used)

	device := n.ask(t, "attach", options, "node-a").Device
	require.NotContains(t, device, "format=never", "nobody has formatted it yet")
	n.ask(t, "detach", "pvc-1", "node-a")
	used, err = n.WasAttached(t.Context(), volume)
	require.NoError(t, err)
	require.True(t, used, "detach left no trace of the attachment")
	require.NoError(t, n.Reclaim(t.Context(), volume))
	require.Empty(t, server.AppInstances("/root"))
	used, err = n.WasAttached(t.Context(), volume)
	require.NoError(t, err)
	require.False(t, used)
}

// In attach mode none the nodes' grants go by the volume's name on the array.
func TestReclaimInModeNone(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	options, volume := claimed(t, n, nil)
	_, err := n.Provision(t.Context(), volume)
	require.NoError(t, err)
	path := strings.Replace(podPath, "pv-datera-0", "pvc-1", 1)
	n.ask(t, "mount", path, options)
	setActiveInitiators(t, server, volume.AppInstance, n.iqn)
	require.ErrorContains(t, n.Reclaim(t.Context(), volume), "is in use by "+n.iqn)
	used, err := n.WasAttached(t.Context(), volume)
	require.NoError(t, err)
	require.True(t, used)
	// The node dies: nobody gives its grant back.
	setActiveInitiators(t, server, volume.AppInstance)
	away := n.over(func(real Array) Array {
		return beforeOffline{real, func() { setActiveInitiators(t, server, volume.AppInstance, n.iqn) }}
	})
	require.ErrorContains(t, n.Reclaim(t.Context(), volume), "unless a node uses it", "a node that logged in at the last moment lost its data")
	away()
	setActiveInitiators(t, server, volume.AppInstance)
	require.NoError(t, n.Reclaim(t.Context(), volume))
	_, left := server.InitiatorGroup("/root", entityNameFor("kubernetes", volume.AppInstance))
	require.False(t, left, "the volume's initiator group is still on the array")
}

// beforeOffline is an array on which somebody comes just before a volume goes offline.
type beforeOffline struct {
	Array
	comes func()
}

func (b beforeOffline) SetAdminState(ctx context.Context, id, state string, force bool) (*datera.AppInstance, error) {
	if state == datera.AdminOffline {
		b.comes()
	}
	return b.Array.SetAdminState(ctx, id, state, force)
}

// What the provisioner made and somebody deleted is not made again, blank, behind the
// back of whoever believes that his data is there.
func TestProvisionedVolumeIsNotMadeAgain(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options, _ := claimed(t, n, nil)
	require.Contains(t, n.refused(t, "attach", options, "node-a"), "nothing is made in its place")
	require.Empty(t, server.AppInstances("/root"))
}

// A clone takes its limits and its size in steps of their own. They are taken again when
// they were cut off.
func TestProvisionGoesOn(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a")
	source, err := server.CreateAppInstance("source", 5)
	require.NoError(t, err)
	path := "/app_instances/" + source.ID + "/storage_instances/storage-1/volumes/volume-1"
	_, volume := claimed(t, n, map[string]string{optSource: path, optMaxIOPS: "500"})
	array := mustArray(t, n)
	_, _, err = array.CreateAppInstance(t.Context(), n.request(volume)) // and no further
	require.NoError(t, err)
	_, err = n.Provision(t.Context(), volume)
	require.NoError(t, err)
	made, _ := server.AppInstance("/root", volume.AppInstance)
	require.Equal(t, []int{10, 500}, []int{made.SizeGiB, made.TotalIOPS})
}

func TestProvisionLeavesOthersAlone(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a")
	_, volume := claimed(t, n, nil)
	_, err := server.CreateAppInstance(volume.AppInstance, 5)
	require.NoError(t, err)
	_, err = n.Provision(t.Context(), volume)
	require.ErrorContains(t, err, "was not made for this PersistentVolume")
	made, err := n.IsProvisioned(t.Context(), volume)
	require.NoError(t, err)
	require.False(t, made)
	require.ErrorContains(t, n.Reclaim(t.Context(), volume), "was not made for this PersistentVolume")
	left, _ := server.AppInstance("/root", volume.AppInstance)
	require.Equal(t, 5, left.SizeGiB)
}

func TestSourceOf(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a")
	made, err := server.CreateAppInstance("source", 5)
	require.NoError(t, err)
	clone := Volume{Name: "pvc-1", AppInstance: "k8s_kubernetes_pvc-1"}
	path, err := n.SourceOf(t.Context(), Volume{AppInstance: "source", Tenant: "/root"}, clone)
	require.NoError(t, err)
	require.Equal(t, "/app_instances/"+made.ID+"/storage_instances/storage-1/volumes/volume-1", path)

	_, err = n.SourceOf(t.Context(), Volume{AppInstance: "nobody"}, clone)
	require.ErrorIs(t, err, datera.ErrNotFound)
	_, err = n.SourceOf(t.Context(), Volume{AppInstance: "source", Tenant: "/root/dev"}, clone)
	require.ErrorContains(t, err, "a clone stays in the tenant")
	elsewhere := &Credentials{Server: Server{Host: "elsewhere"}, Username: "u", Password: "p"}
	_, err = n.SourceOf(t.Context(), Volume{AppInstance: "source"}, Volume{Secret: elsewhere})
	require.ErrorContains(t, err, "of elsewhere: a clone stays")
	_, err = n.SourceOf(t.Context(), Volume{AppInstance: "source"}, Volume{Server: Server{Host: "elsewhere"}})
	require.ErrorContains(t, err, "sent nowhere else")
}

// Secrets come as kubelet passes them.
func TestOptionsOfWithASecret(t *testing.T) {
	document := OptionsOf("pvc-1", "ext4", true, map[string]string{optSize: "1"},
		map[string][]byte{"username": []byte("admin"), "password": []byte("canary"), "server": []byte("array:7717")})
	volume, err := ParseVolume(document, "kubernetes")
	require.NoError(t, err)
	require.Equal(t, Volume{
		Name: "pvc-1", AppInstance: "k8s_kubernetes_pvc-1", Derived: true, SizeGiB: 1, Replicas: 3, Filesystem: "ext4", ReadOnly: true,
		Secret: &Credentials{Server: Server{Host: "array", Port: 7717}, Username: "admin", Password: "canary"},
	}, volume)
}
