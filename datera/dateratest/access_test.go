package dateratest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestACL(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	for iqn, name := range map[string]string{iqn1: "node1", iqn2: "node2"} {
		require.NoError(t, array.RegisterInitiator(iqn, name))
	}
	member := func(iqn string) js { return js{"path": "/initiators/" + iqn} }
	op := func(path, op string) js { return js{"path": path, "op": op} }

	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{member(iqn1), member(iqn1)}})
	full := js{"path": "/initiators/" + iqn1, "tenant": "/root", "id": iqn1, "name": "node1"}
	require.Equal(t, []any{full}, c.ok("GET", si+"/acl_policy", nil)["initiators"])
	require.Equal(t, []any{full}, c.items(si+"/acl_policy/initiators"))
	c.version = "v2.1"
	require.Equal(t, []any{js{"path": "/initiators/" + iqn1}}, c.ok("GET", si+"/acl_policy", nil)["initiators"], "references")
	require.Equal(t, []any{full}, c.items(si+"/acl_policy/initiators"), "the initiators themselves")
	c.version = "v2.2"
	c.fails(422, "ValidationFailedError", "PUT", si+"/acl_policy", js{"initiators": []js{full}})
	require.Len(t, c.ok("PUT", si+"/acl_policy", js{})["initiators"], 1, "an empty body changes nothing")
	c.fails(404, "NotFoundError", "PUT", si+"/acl_policy", js{"initiators": []js{member("iqn.2000-01.x:unknown")}})
	c.fails(404, "NotFoundError", "PUT", si+"/acl_policy", js{"initiator_groups": []js{{"path": "/initiator_groups/none"}}})
	c.fails(404, "NotFoundError", "PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiator_groups/none"}}})

	require.Equal(t, "node2", c.ok("PUT", si+"/acl_policy/initiators", op("/initiators/"+iqn2, "add"))["name"], "the answer is the initiator")
	require.Len(t, c.items(si+"/acl_policy/initiators"), 2)
	c.fails(409, "ConflictError", "PUT", si+"/acl_policy/initiators", op("/initiators/"+iqn2, "add"))
	c.fails(404, "NotFoundError", "PUT", si+"/acl_policy/initiators", op("/initiators/iqn.2000-01.x:unknown", "add"))
	c.ok("PUT", si+"/acl_policy/initiators", op("/initiators/"+iqn1, "remove"))
	c.fails(404, "NotFoundError", "PUT", si+"/acl_policy/initiators", op("/initiators/"+iqn1, "remove"))
	c.fails(422, "ValidationFailedError", "PUT", si+"/acl_policy/initiators", op("/initiators/"+iqn1, "swap"))

	c.ok("POST", "/initiator_groups", js{"name": "group-1", "members": []js{member(iqn1)}})
	c.fails(409, "ConflictError", "POST", "/initiator_groups", js{"name": "group-1"})
	c.fails(404, "NotFoundError", "POST", "/initiator_groups", js{"name": "group-2", "members": []js{member("iqn.2000-01.x:unknown")}})
	group := c.ok("GET", "/initiator_groups/group-1", nil)
	require.Len(t, group["members"], 1)
	require.Equal(t, group, c.ok("PUT", si+"/acl_policy/initiator_groups", op("/initiator_groups/group-1", "add")), "the answer is the group")
	require.Equal(t, []any{group}, c.items(si+"/acl_policy/initiator_groups"))
	c.version = "v2.1"
	require.Equal(t, []any{js{"path": "/initiator_groups/group-1", "name": "group-1", "members": []any{js{"path": "/initiators/" + iqn1}}}},
		c.items(si+"/acl_policy/initiator_groups"))
	c.version = "v2.2"
	require.Equal(t, "/root", at(t, c.ok("GET", si+"/acl_policy", nil), "initiator_groups", 0, "tenant"))
	seen, _ := array.AppInstance("/root", "pv-1")
	require.Equal(t, []string{iqn1, iqn2}, seen.Allowed)

	require.Contains(t, c.fails(400, "InvalidRequestError", "DELETE", "/initiator_groups/group-1", nil)["message"], "in use")
	c.fails(400, "InvalidRequestError", "DELETE", "/initiators/"+iqn1, nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/initiators/"+iqn2, js{"force": true})
	require.NoError(t, array.SetActiveInitiators("pv-1", iqn1, iqn2))
	members := "/initiator_groups/group-1/members"
	require.Equal(t, full, c.ok("PUT", members, op("/initiators/"+iqn1, "remove")), "the answer is the initiator")
	require.Empty(t, c.items(members))
	require.Equal(t, []any{iqn2}, c.ok("GET", si, nil)["active_initiators"], "who left the ACL has lost his session")
	c.fails(404, "NotFoundError", "PUT", members, op("/initiators/"+iqn1, "remove"))
	c.ok("PUT", members, op("/initiators/"+iqn1, "add"))
	c.fails(409, "ConflictError", "PUT", members, op("/initiators/"+iqn1, "add"))
	for _, version := range []string{"v2.1", "v2.2"} {
		c.version = version
		require.Equal(t, []any{full}, c.items(members))
	}
	list, exists := array.InitiatorGroup("/root", "group-1")
	require.True(t, exists)
	require.Equal(t, []string{iqn1}, list)
	require.Len(t, c.ok("PUT", "/initiator_groups/group-1", js{"members": []js{member(iqn1), member(iqn2)}})["members"], 2)
	c.fails(422, "ValidationFailedError", "PUT", "/initiator_groups/group-1", js{"name": "other"})
	c.fails(404, "NotFoundError", "GET", "/initiator_groups/none/members", nil)
	c.fails(404, "NotFoundError", "PUT", "/initiator_groups/none/members", op("/initiators/"+iqn1, "add"))

	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{}, "initiator_groups": []js{}})
	c.ok("DELETE", "/initiator_groups/group-1", nil)
	c.fails(404, "NotFoundError", "DELETE", "/initiator_groups/group-1", nil)
	c.ok("DELETE", "/initiators/"+iqn1, nil)
	_, exists = array.InitiatorGroup("/root", "group-1")
	require.False(t, exists)
}

func TestInitiators(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	made := c.ok("POST", "/initiators", js{"id": iqn1, "name": "node1", "force": true})
	require.Equal(t, js{"path": "/initiators/" + iqn1, "id": iqn1, "name": "node1", "tenant": "/root"}, made)
	require.Equal(t, made, c.ok("GET", "/initiators/"+iqn1, nil))
	require.Equal(t, made, c.ok("GET", "/initiators/"+strings.ReplaceAll(iqn1, ":", "%3A"), nil), "escaped")
	c.fails(409, "ConflictError", "POST", "/initiators", js{"id": iqn1, "name": "other"})
	require.Contains(t, c.fails(404, "NotFoundError", "GET", "/initiators/"+iqn2, nil)["message"], "does not exist")
	require.Equal(t, "renamed", c.ok("PUT", "/initiators/"+iqn1, js{"name": "renamed"})["name"])
	for _, id := range []string{"node1", "iqn.1993.org:x", "iqn.1993-08.org/x", "eui.123"} {
		c.fails(422, "ValidationFailedError", "POST", "/initiators", js{"id": id, "name": "node"})
	}
	c.ok("POST", "/initiators", js{"id": "eui.0123456789abcdef", "name": "node3"})
	c.version = "v2.1"
	c.fails(422, "ValidationFailedError", "POST", "/initiators", js{"id": iqn2, "name": "node2", "force": true})
	c.version = "v2.3"

	c.ok("POST", "/tenants", js{"name": "sub"})
	c.tenant = "/root/sub"
	require.Equal(t, "/root", c.ok("GET", "/initiators/"+iqn1, nil)["tenant"], "inherited")
	require.Contains(t, c.fails(400, "InvalidRequestError", "POST", "/initiators", js{"id": iqn1, "name": "mine"})["message"], "override this warning")
	c.fails(400, "InvalidRequestError", "DELETE", "/initiators/"+iqn1, nil)
	require.Equal(t, "/root/sub", c.ok("POST", "/initiators", js{"id": iqn1, "name": "mine", "force": true})["tenant"])
	require.Equal(t, "mine", c.ok("GET", "/initiators/"+iqn1, nil)["name"])
	require.Len(t, c.items("/initiators"), 2, "own ones hide inherited ones")
	require.Equal(t, map[string]string{iqn1: "mine"}, array.Initiators("/root/sub"))
}

func TestAuth(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	for name, test := range map[string]struct {
		body   js
		status int
	}{
		"no type":        {js{"target_user_name": "user"}, 200},
		"short password": {js{"type": "chap", "target_user_name": "user", "target_pswd": "12345678901"}, 422},
		"long password":  {js{"type": "chap", "target_user_name": "user", "target_pswd": "12345678901234567"}, 422},
		"no password":    {js{"type": "chap", "target_user_name": "user"}, 400},
		"one way only":   {js{"type": "mchap", "target_user_name": "user", "target_pswd": "123456789012"}, 400},
		"equal": {js{"type": "mchap", "target_user_name": "user", "target_pswd": "123456789012", "initiator_user_name": "array",
			"initiator_pswd": "123456789012"}, 400},
		"good": {js{"type": "mchap", "target_user_name": "user", "target_pswd": "123456789012", "initiator_user_name": "array",
			"initiator_pswd": "1234567890123456"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.ok("PUT", si+"/auth", js{"type": "none"})
			a := c.do("PUT", si+"/auth", test.body)
			require.Equal(t, test.status, a.status, "%s", a.raw)
			require.NotContains(t, string(a.raw), "123456789012")
		})
	}
	c.t = t
	c.ok("PUT", si+"/auth", js{"type": "mchap", "target_user_name": "user", "target_pswd": "123456789012", "initiator_user_name": "array",
		"initiator_pswd": "1234567890123456"})
	seen := c.ok("GET", si+"/auth", nil)
	require.Equal(t, "mchap", seen["type"])
	require.Equal(t, "(hidden)", seen["target_pswd"])
	require.Equal(t, "array", seen["initiator_user_name"])
	require.Equal(t, "", c.ok("PUT", si+"/auth", js{"type": "none"})["target_user_name"])
	c.ok("PUT", si, js{"auth": js{"type": "chap", "target_user_name": "user", "target_pswd": "123456789012"}})
	c.fails(400, "InvalidRequestError", "PUT", si, js{"auth": js{"type": "mchap"}})
	require.Equal(t, "chap", c.ok("PUT", si+"/auth", js{"target_pswd": "210987654321"})["type"], "without a type it stays")
	require.Equal(t, "user", c.ok("GET", si+"/auth", nil)["target_user_name"])
	body := simple("pv-2", 1)
	body["storage_instances"].([]js)[0]["auth"] = js{"target_user_name": "user"}
	c.fails(422, "ValidationFailedError", "POST", "/app_instances", body)
}

// TestFoldedIQNs is an array that keeps IQNs in lower case: a look-up of what was registered has to fold them, too.
func TestFoldedIQNs(t *testing.T) {
	array := dateratest.Start(t, dateratest.WithFoldedIQNs())
	c := connect(t, array)
	const given, kept = "iqn.1993-08.org.debian:01:NODE1", "iqn.1993-08.org.debian:01:node1"
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	require.Equal(t, kept, c.ok("POST", "/initiators", js{"id": given, "name": "Node1"})["id"])
	c.fails(409, "ConflictError", "POST", "/initiators", js{"id": kept, "name": "node1"})
	require.Equal(t, "/initiators/"+kept, c.ok("GET", "/initiators/"+given, nil)["path"])
	require.Equal(t, "Node1", c.ok("GET", "/initiators/"+kept, nil)["name"], "names keep their case")
	c.ok("POST", "/initiator_groups", js{"name": "Group-1", "members": []js{{"path": "/initiators/" + given}}})
	c.fails(409, "ConflictError", "PUT", "/initiator_groups/Group-1/members", js{"path": "/initiators/" + kept, "op": "add"})
	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + given}}})
	require.NoError(t, array.SetActiveInitiators("pv-1", given))
	require.Equal(t, []any{kept}, c.ok("GET", si, nil)["active_initiators"])
	c.ok("PUT", si+"/acl_policy/initiators", js{"path": "/initiators/" + given, "op": "remove"})
	require.Empty(t, c.ok("GET", si, nil)["active_initiators"])
}
