package driver

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// A version before this one kept one group for a PersistentVolume, and a list of who only reads. It may be at work on other
// nodes, or what it left may be in use.

// formerly attaches a volume to a node as that version did.
func formerly(t *testing.T, server *dateratest.Server, cluster, pv, volume string, reading bool, n *node) {
	t.Helper()
	do := func(method, path string, body map[string]any) {
		_, err := server.Do("/root", method, path, body)
		require.NoError(t, err)
	}
	joins := func(group string) {
		if _, exists := server.InitiatorGroup("/root", group); !exists {
			do(http.MethodPost, "/initiator_groups", map[string]any{"name": group, "members": []any{}})
		}
		do(http.MethodPut, "/initiator_groups/"+group+"/members", map[string]any{"path": "/initiators/" + n.iqn, "op": "add"})
	}
	if reading {
		joins("k8s-ro_" + cluster + "_" + pv)
	}
	group := "k8s_" + cluster + "_" + pv
	joins(group)
	ai, _ := server.AppInstance("/root", volume)
	for _, known := range ai.Groups {
		if known == "/initiator_groups/"+group {
			return
		}
	}
	do(http.MethodPut, "/app_instances/"+volume+"/storage_instances/storage-1/acl_policy/initiator_groups",
		map[string]any{"path": "/initiator_groups/" + group, "op": "add"})
}

func TestClaimsOfTheFormerVersionCount(t *testing.T) {
	tests := map[string]struct {
		cluster, pv string
		reading     bool
		options     string // of whoever comes now
	}{
		"a writer's":                           {"kubernetes", "pv-1", false, optionsUnder("pv-1", "vol-1")},
		"a writer's, for a reader":             {"kubernetes", "pv-1", false, readingUnder("pv-1", "vol-1")},
		"a reader's":                           {"kubernetes", "pv-1", true, optionsUnder("pv-1", "vol-1")},
		"by another PersistentVolume":          {"kubernetes", "pv-old", false, optionsUnder("pv-1", "vol-1")},
		"by another PersistentVolume, to read": {"kubernetes", "pv-old", true, readingUnder("pv-1", "vol-1")},
		"by another cluster":                   {"other", "pv-1", false, optionsUnder("pv-1", "vol-1")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
			makeVolume(t, a, "vol-1")
			formerly(t, server, test.cluster, test.pv, "vol-1", test.reading, a)
			require.Contains(t, b.refused(t, "attach", test.options, "node-b"), "node node-a ("+a.iqn+")")
			require.Equal(t, []string{a.iqn}, letIn(t, server, "vol-1"))
			require.ErrorContains(t, b.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")), "is in use by "+a.iqn)
		})
	}
}

// The node itself goes on with what it had, and detach takes all of it.
func TestDetachEmptiesTheGroupsOfTheFormerVersion(t *testing.T) {
	for _, reading := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			server := array(t)
			a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
			makeVolume(t, a, "vol-1")
			formerly(t, server, "kubernetes", "pv-1", "vol-1", reading, a)
			if reading {
				formerly(t, server, "kubernetes", "pv-1", "vol-1", true, b)
			}
			options := optionsUnder("pv-1", "vol-1")
			require.Equal(t, !reading, *a.ask(t, "isattached", options, "node-a").Attached, "a reader is not attached for a pod that writes")
			require.True(t, *a.ask(t, "isattached", readingUnder("pv-1", "vol-1"), "node-a").Attached)
			if again && !reading {
				a.ask(t, "attach", options, "node-a")
			}
			b.ask(t, "detach", "pv-1", "node-a")
			require.NotContains(t, letIn(t, server, "vol-1"), a.iqn)
			for _, group := range []string{"k8s_kubernetes_pv-1", "k8s-ro_kubernetes_pv-1"} {
				members, _ := server.InitiatorGroup("/root", group)
				require.NotContains(t, members, a.iqn, group)
				require.Equal(t, reading, len(members) == 1, "%s: another node's claim was taken", group)
			}
			b.ask(t, "detach", "pv-1", "node-b")
			b.ask(t, "attach", options, "node-b")
			require.Equal(t, []string{b.iqn}, letIn(t, server, "vol-1"))
		}
	}
}

// A PersistentVolume's former group is no group of one whose name begins alike, or ends alike.
func TestDetachLeavesTheFormerGroupsOfOthers(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	makeVolume(t, a, "vol-1")
	for cluster, pv := range map[string]string{"kubernetes": "pv-11", "kubernetes_pv-1": "x", "other": "pv-1"} {
		formerly(t, server, cluster, pv, "vol-1", true, a)
	}
	before := letIn(t, server, "vol-1")
	a.ask(t, "detach", "pv-1", "node-a")
	require.Equal(t, before, letIn(t, server, "vol-1"))
	for _, group := range []string{"k8s_kubernetes_pv-11", "k8s-ro_kubernetes_pv-11", "k8s_kubernetes_pv-1_x", "k8s_other_pv-1"} {
		members, _ := server.InitiatorGroup("/root", group)
		require.Equal(t, []string{a.iqn}, members, group)
	}
}
