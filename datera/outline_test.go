package datera

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutlines(t *testing.T) {
	t.Parallel()
	a := newArray(t, listOf(
		map[string]any{"name": "kube-pv-1", "id": "i-1", "descr": "volume pv-1 of Kubernetes cluster prod", "storage_instances": []any{map[string]any{
			"path": "/app_instances/i-1/storage_instances/storage-1", "access_control_mode": "deny_all", "active_initiators": []any{},
			"acl_policy": map[string]any{"initiators": []any{map[string]any{"path": "/initiators/" + iqn}}, "initiator_groups": []any{"/initiator_groups/backup"}},
			"volumes":    "in an unknown form",
		}}},
		map[string]any{"name": "of an array without sessions", "id": "i-2", "storage_instances": []any{map[string]any{"path": "/x"}}},
		map[string]any{"name": "empty", "id": "i-3"},
	))
	found, err := a.client(t).AppInstanceOutlines(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 3)
	require.Equal(t, AppInstance{Name: "kube-pv-1", ID: "i-1", Descr: "volume pv-1 of Kubernetes cluster prod", StorageInstances: []StorageInstance{{
		Path: "/app_instances/i-1/storage_instances/storage-1", AccessControlMode: "deny_all", ActiveInitiators: []string{},
		ACL: ACL{Initiators: []Reference{{Path: "/initiators/" + iqn, Name: iqn}}, InitiatorGroups: []Reference{{Path: "/initiator_groups/backup", Name: "backup"}}},
	}}}, found[0])
	require.Nil(t, found[1].StorageInstances[0].ActiveInitiators, "no list of sessions is not a list of none")
	require.Empty(t, found[2].StorageInstances)
}

func TestInitiators(t *testing.T) {
	t.Parallel()
	a := newArray(t, listOf(initiator(iqn, "node-1", "/root")))
	found, err := a.client(t).Initiators(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Initiator{{Path: "/initiators/" + iqn, ID: iqn, Name: "node-1", Tenant: "/root"}}, found)
}
