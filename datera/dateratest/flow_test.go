package dateratest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestDriverFlow is what a volume driver does in the life of one volume.
func TestDriverFlow(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	c.ok("POST", "/initiators", js{"id": iqn1, "name": "node1"})
	c.ok("POST", "/initiator_groups", js{"name": "group-1", "members": []js{}})
	c.ok("PUT", si+"/acl_policy", js{"initiator_groups": []js{{"path": "/initiator_groups/group-1"}}})
	c.do("PUT", "/initiator_groups/group-1/members", js{"path": "/initiators/" + iqn1, "op": "add"})
	seen, exists := array.AppInstance("/root", "pv-1")
	require.True(t, exists)
	require.Equal(t, []string{iqn1}, seen.Allowed)
	c.ok("PUT", "/app_instances/pv-1/metadata", js{"formatted": "true"})
	require.Equal(t, js{"formatted": "true"}, c.ok("GET", "/app_instances/pv-1/metadata", nil))
	require.EqualValues(t, 32, c.ok("PUT", vol, js{"size": 32})["size"])
	c.do("PUT", "/initiator_groups/group-1/members", js{"path": "/initiators/" + iqn1, "op": "remove"})
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	c.ok("DELETE", "/app_instances/pv-1", nil)
	require.Empty(t, array.AppInstances("/root"))
	for _, r := range array.Requests() {
		t.Log(r)
	}
}
