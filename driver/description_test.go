package driver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

const anotherUID = "7a9f2c55-1c1e-4d0e-8f53-2f6c9b1a7e11"

func TestDescriptions(t *testing.T) {
	known := Config{Cluster: "kubernetes", ClusterID: kubeSystemUID}
	require.Equal(t, "volume pv-1 of Kubernetes cluster kubernetes with ID "+kubeSystemUID, known.descriptionOf("pv-1"))
	require.Equal(t, "volume pv-1 of Kubernetes cluster kubernetes", Config{Cluster: "kubernetes"}.descriptionOf("pv-1"))
	longest := Config{Cluster: strings.Repeat("c", 32), ClusterID: strings.Repeat("i", longestClusterID)}
	long := strings.Repeat("p", 250)
	for _, config := range []Config{known, longest} {
		a, b := config.descriptionOf(long+"a"), config.descriptionOf(long+"b")
		require.LessOrEqual(t, len(a), longestDescription)
		require.NotEqual(t, a, b, "two volumes are described alike")
		cluster, identity := madeBy(a)
		require.Equal(t, []string{config.Cluster, config.ClusterID}, []string{cluster, identity}, "the identity was cut off")
	}
	for description, want := range map[string][2]string{
		"":                                    {"", ""},
		"made by hand":                        {"", ""},
		"volume x of Kubernetes cluster ":     {"", ""},
		"volume x of Kubernetes cluster prod": {"prod", ""},
		"volume x of Kubernetes cluster prod (id)":                  {"prod", "id"},
		"volume x of Kubernetes cluster prod (id":                   {"prod", "id"},
		"a of Kubernetes cluster b of Kubernetes cluster prod (id)": {"prod", "id"},
	} {
		cluster, identity := madeBy(description)
		require.Equal(t, want, [2]string{cluster, identity}, description)
	}
}

func TestMadeForThisCluster(t *testing.T) {
	tests := map[string]struct {
		config      Config
		description string
		made        bool
	}{
		"by this one":                             {Config{Cluster: "c", ClusterID: "id"}, "volume pv-1 of Kubernetes cluster c (id)", true},
		"before its identity was known":           {Config{Cluster: "c", ClusterID: "id"}, "volume pv-1 of Kubernetes cluster c", true},
		"by another one of this name":             {Config{Cluster: "c", ClusterID: "id"}, "volume pv-1 of Kubernetes cluster c (other)", false},
		"by another one, known by its name alone": {Config{Cluster: "c", ClusterID: "id"}, "volume pv-1 of Kubernetes cluster d", false},
		"by one of this name, which knows more":   {Config{Cluster: "c"}, "volume pv-1 of Kubernetes cluster c (id)", false},
		"for another volume":                      {Config{Cluster: "c", ClusterID: "id"}, "volume pv-2 of Kubernetes cluster c (id)", false},
		"by nobody who says so":                   {Config{Cluster: "c", ClusterID: "id"}, "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&Driver{Config: test.config}).madeFor(&datera.AppInstance{Descr: test.description}, Volume{Name: "pv-1"})
			require.Equal(t, test.made, err == nil, "%v", err)
		})
	}
}

// Two clusters with the default name and a PersistentVolume of one name: neither of them meant the other's volume.
func TestVolumeOfAnotherClusterOfThisName(t *testing.T) {
	inline := optionsWith(map[string]string{"retainPolicy": "never"}, optVolumeID)
	named := optionsWith(map[string]string{"volumeID": "k8s_kubernetes_pv-datera-0"})
	tests := map[string]struct {
		id   string
		call func(t *testing.T, n *node) string // "" when it succeeds
	}{
		"attach": {anotherUID, func(t *testing.T, n *node) string { return n.refused(t, "attach", inline, n.name) }},
		"mount in mode none": {anotherUID, func(t *testing.T, n *node) string {
			n.Config.Attach, n.Config.Node = AttachNone, n.name
			return n.refused(t, "mount", podPath, inline)
		}},
		"attach in a cluster that is known by its name alone": {"", func(t *testing.T, n *node) string { return n.refused(t, "attach", inline, n.name) }},
		"delete": {anotherUID, func(t *testing.T, n *node) string {
			volume, err := n.volume(inline)
			require.NoError(t, err)
			err = n.Delete(t.Context(), volume)
			require.Error(t, err)
			return err.Error()
		}},
		"the same cluster, from another node": {kubeSystemUID, func(t *testing.T, n *node) string {
			n.ask(t, "attach", inline, n.name)
			return ""
		}},
		"by the name that the volume has on the array, which is meant": {anotherUID, func(t *testing.T, n *node) string {
			n.ask(t, "attach", named, n.name)
			return ""
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			first := newNode(t, server, "node-a", func(c *Config) { c.ClusterID = kubeSystemUID }).registered(t)
			first.ask(t, "attach", inline, "node-a")
			first.ask(t, "detach", "pv-datera-0", "node-a")
			made := server.AppInstances("/root")
			require.Equal(t, []string{"k8s_kubernetes_pv-datera-0"}, made)

			second := newNode(t, server, "node-b", func(c *Config) { c.ClusterID = test.id }).registered(t)
			message := test.call(t, second)
			if message != "" {
				require.Contains(t, message, `was made for cluster "kubernetes" with identity `+kubeSystemUID)
				require.Contains(t, message, "Give each cluster a `cluster` of its own")
				require.Contains(t, message, "set cluster_id: "+kubeSystemUID)
			}
			require.Equal(t, made, server.AppInstances("/root"), "the other cluster's volume was touched")
			first.ask(t, "isattached", inline, "node-a")
		})
	}
}

// What an earlier version made stays this cluster's.
func TestVolumeThatWasMadeBeforeTheIdentityWasKnown(t *testing.T) {
	server := array(t)
	options := optionsWith(map[string]string{"retainPolicy": "never"}, optVolumeID)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", options, "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	n.Config.ClusterID = kubeSystemUID
	n.ask(t, "attach", options, "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	volume, err := n.volume(options)
	require.NoError(t, err)
	require.NoError(t, n.Reclaim(t.Context(), volume))
	require.Empty(t, server.AppInstances("/root"))
}
