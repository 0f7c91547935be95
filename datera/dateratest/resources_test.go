package dateratest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestSnapshots(t *testing.T) {
	now := time.Unix(1446076384, 6078460)
	array := dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.Now = func() time.Time { return now } }))
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	id := "0f2a0e1c-0000-4000-8000-000000000001"
	made := c.ok("POST", vol+"/snapshots", js{"uuid": id})
	require.Equal(t, "1446076384.00607846", made["utc_ts"], "without trailing zeros")
	require.Equal(t, made["utc_ts"], made["timestamp"])
	require.Equal(t, id, made["uuid"])
	require.Equal(t, "available", made["op_state"])
	require.True(t, strings.HasPrefix(made["path"].(string), "/app_instances/") && strings.HasSuffix(made["path"].(string), "/snapshots/1446076384.00607846"))
	require.EqualValues(t, 15, c.fails(400, "InvalidRequestError", "POST", vol+"/snapshots", js{"uuid": id})["code"])
	second := c.ok("POST", vol+"/snapshots", js{})["utc_ts"].(string)
	require.Equal(t, "1446076384.006078461", second, "time stamps are unique")
	require.Len(t, c.items(vol+"/snapshots"), 2)
	require.Len(t, c.ok("GET", vol, nil)["snapshots"], 2)
	c.fails(404, "NotFoundError", "GET", vol+"/snapshots/1.5", nil)
	c.fails(404, "NotFoundError", "GET", "/app_instances/pv-9/snapshots", nil)
	c.fails(404, "NotFoundError", "GET", "/app_instances/pv-9/storage_instances/storage-1/volumes/volume-1/snapshots", nil)

	whole := c.ok("POST", "/app_instances/pv-1/snapshots", js{})["utc_ts"].(string)
	require.Len(t, c.items(vol+"/snapshots"), 3, "one of the app instance is one of each volume")
	require.Len(t, c.items("/app_instances/pv-1/snapshots"), 1)

	for _, at := range []string{"/app_instances/pv-1", vol} {
		c.fails(400, "InvalidRequestError", "PUT", at, js{"restore_point": whole})
	}
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline"})
	for _, at := range []string{"/app_instances/pv-1", vol} {
		c.fails(404, "NotFoundError", "PUT", at, js{"restore_point": "1.5"})
		require.Equal(t, whole, c.ok("PUT", at, js{"restore_point": whole})["restore_point"])
	}
	c.ok("DELETE", "/app_instances/pv-1/snapshots/"+whole, nil)
	c.ok("DELETE", vol+"/snapshots/"+second, js{"remote_provider_uuid": "", "force": false})
	require.Len(t, c.items(vol+"/snapshots"), 1)
	seen, _ := array.AppInstance("/root", "pv-1")
	require.Equal(t, []string{"1446076384.00607846"}, seen.Snapshots)

	for _, holder := range []string{"/app_instances/pv-1", vol} {
		at := holder + "/snapshot_policies"
		c.ok("POST", at, js{"name": "daily", "interval": "1day", "retention_count": 7, "start_time": "2026-01-01T00:00:00Z"})
		c.fails(409, "ConflictError", "POST", at, js{"name": "daily", "interval": "1day", "retention_count": 7})
		c.fails(422, "ValidationFailedError", "POST", at, js{"name": "odd", "interval": "3days", "retention_count": 7})
		require.EqualValues(t, 9, c.ok("PUT", at+"/daily", js{"retention_count": 9})["retention_count"])
		require.Equal(t, "1day", c.ok("GET", at+"/daily", nil)["interval"])
		c.ok("DELETE", at+"/daily", nil)
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			c.fails(404, "NotFoundError", method, at+"/daily", nil)
		}
		require.Empty(t, c.items(at))
	}
}

func TestWholeSecondStamp(t *testing.T) {
	now := time.Unix(1446076384, 0)
	c := connect(t, dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.Now = func() time.Time { return now } })))
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	require.Equal(t, "1446076384.0", c.ok("POST", vol+"/snapshots", js{})["utc_ts"], "there is always a fraction")
}

func TestClones(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/initiators", js{"id": iqn1, "name": "node1"})
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	c.ok("POST", vol+"/performance_policy", js{"total_iops_max": 7})
	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + iqn1}}})
	source, _ := array.AppInstance("/root", "pv-1")
	stamp := c.ok("POST", vol+"/snapshots", js{})["utc_ts"].(string)
	whole := c.ok("POST", "/app_instances/pv-1/snapshots", js{})["utc_ts"].(string)
	for name, body := range map[string]js{
		"of-app":      {"clone_src": js{"path": "/app_instances/pv-1"}},
		"of-volume":   {"clone_volume_src": js{"path": vol}},
		"of-snapshot": {"clone_snapshot_src": js{"path": vol + "/snapshots/" + stamp}},
		"of-whole":    {"clone_snapshot_src": js{"path": "/app_instances/" + source.ID + "/snapshots/" + whole}},
	} {
		body["name"] = name
		c.ok("POST", "/app_instances", body)
		twin, _ := array.AppInstance("/root", name)
		require.Equal(t, 16, twin.SizeGiB, name)
		require.Equal(t, 7, twin.TotalIOPS, name)
		require.NotEmpty(t, twin.CloneSrc, name)
		require.Empty(t, twin.Allowed, "nobody is in the ACL of %s", name)
		require.NotEqual(t, source.VolumeUUID, twin.VolumeUUID, name)
		require.NotEqual(t, source.IQN, twin.IQN, name)
		require.EqualValues(t, 20, c.ok("PUT", "/app_instances/"+name+"/storage_instances/storage-1/volumes/volume-1", js{"size": 20})["size"])
	}
	for _, wrong := range []string{"", "x", "//x"} {
		c.fails(422, "ValidationFailedError", "POST", "/app_instances", js{"name": "wrong", "clone_snapshot_src": js{"path": wrong}})
	}
	for _, wrong := range []string{"/", "/x/y", "/app_instances/pv-1/x/y", "/app_instances/pv-1/storage_instances/x",
		si + "/volumes/x", vol + "/snapshots/1.1", "/app_instances/pv-1/snapshots/1.1", vol + "/snapshots/1.1/x/y", vol + "/x"} {
		c.fails(404, "NotFoundError", "POST", "/app_instances", js{"name": "wrong", "clone_snapshot_src": js{"path": wrong}})
	}
}

func TestOpStateDelay(t *testing.T) {
	now := time.Unix(1000, 0)
	array := dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.Now = func() time.Time { return now } }),
		dateratest.WithOpStateDelay(2*time.Second))
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	require.Equal(t, "unavailable", c.ok("GET", si, nil)["op_state"])
	now = now.Add(2 * time.Second)
	require.Equal(t, "available", c.ok("GET", si, nil)["op_state"])
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
	require.Equal(t, "available", c.ok("GET", si, nil)["op_state"], "online twice is no restart")

	resized := c.ok("PUT", vol, js{"size": 20})
	require.EqualValues(t, 16, resized["size"])
	require.Equal(t, "volume_resize_in_progress", resized["op_status"])
	snapshot := c.ok("POST", vol+"/snapshots", js{})
	require.Equal(t, "unavailable", snapshot["op_state"])
	c.fails(409, "ConflictError", "POST", "/app_instances", js{"name": "early", "clone_snapshot_src": js{"path": snapshot["path"]}})
	clone := c.ok("POST", "/app_instances", js{"name": "twin", "clone_volume_src": js{"path": vol}})
	require.Equal(t, "cloning", clone["op_state"])
	now = now.Add(2 * time.Second)
	require.EqualValues(t, 20, c.ok("GET", vol, nil)["size"])
	require.NotContains(t, c.ok("GET", vol, nil), "op_status")
	require.Equal(t, "available", c.ok("GET", vol+"/snapshots/"+snapshot["utc_ts"].(string), nil)["op_state"])
	require.NotContains(t, c.ok("GET", "/app_instances/twin", nil), "op_state")
}

func TestOpenStackUUID(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	id := "6c26437d-0000-4000-8000-00000000000a"
	body := simple("OS-1", 1)
	body["uuid"] = id
	made := c.ok("POST", "/app_instances", body)
	require.Equal(t, id, made["uuid"])
	require.Equal(t, id, at(t, made, "storage_instances", 0, "volumes", 0, "uuid"))
	body["name"] = "OS-2"
	c.fails(409, "ConflictError", "POST", "/app_instances", body)
}

func TestTemplates(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	body := js{"name": "pv-1", "app_template": js{"path": "/app_templates/basic"}}
	made := c.ok("POST", "/app_instances", body)
	require.Equal(t, js{"path": "/app_templates/basic", "resolved_path": "/app_templates/basic", "resolved_tenant": "/root"}, made["app_template"])
	require.EqualValues(t, 16, at(t, made, "storage_instances", 0, "volumes", 0, "size"))
	override := func(si, vol, size string) js {
		return js{"storage_instances": js{si: js{"volumes": js{vol: js{"size": size}}}}}
	}
	body["name"], body["template_override"] = "pv-2", override("storage-1", "volume-1", "40")
	made = c.ok("POST", "/app_instances", body)
	require.EqualValues(t, 40, at(t, made, "storage_instances", 0, "volumes", 0, "size"))
	require.Contains(t, made, "template_override")
	body["name"] = "pv-3"
	for size, status := range map[string]int{"x": 422, "0": 422, "999999": 422} {
		body["template_override"] = override("storage-1", "volume-1", size)
		c.fails(status, "ValidationFailedError", "POST", "/app_instances", body)
	}
	body["template_override"] = override("storage-1", "volume-9", "5")
	c.fails(400, "InvalidRequestError", "POST", "/app_instances", body)
	c.version = "v2.1"
	c.fails(422, "ValidationFailedError", "POST", "/app_instances", body)
	c.version = "v2.2"
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline"})
	c.ok("POST", "/access_network_ip_pools", js{"name": "fast", "network_paths": []js{{"name": "net_1", "start_ip": "10.0.0.1", "range": 10, "netmask": 24}}})
	c.fails(400, "InvalidRequestError", "PUT", si, js{"ip_pool": js{"path": "/access_network_ip_pools/fast"}})

	own := c.ok("POST", "/app_templates", js{"name": "own", "descr": "new", "storage_templates": []js{{"name": "storage-1",
		"ip_pool": js{"path": "/access_network_ip_pools/fast"}, "auth": js{"type": "chap", "target_user_name": "user", "target_pswd": "123456789012"},
		"volume_templates": []js{{"name": "volume-1", "size": 3, "performance_policy": js{"read_iops_max": 9}}}}}})
	require.Equal(t, "(hidden)", at(t, own, "storage_templates", 0, "auth", "target_pswd"))
	c.fails(409, "ConflictError", "POST", "/app_templates", js{"name": "own"})
	c.fails(404, "NotFoundError", "POST", "/app_templates", js{"name": "copy", "copy_from": js{"path": "/app_templates/none"}})
	c.ok("POST", "/app_templates", js{"name": "copy", "copy_from": js{"path": "/app_templates/own"}})
	c.ok("POST", "/app_instances", js{"name": "pv-4", "app_template": js{"path": "/app_templates/copy"}})
	seen, _ := array.AppInstance("/root", "pv-4")
	require.Equal(t, "chap", seen.AuthType)
	require.Equal(t, []string{"10.0.0.1"}, seen.IPs)
	c.fails(400, "InvalidRequestError", "DELETE", "/app_templates/copy", nil)
	changed := c.ok("PUT", "/app_templates/own", js{"storage_templates": []js{{"name": "storage-9"}}})
	require.Len(t, changed["storage_templates"], 1)
	require.Equal(t, "storage-9", at(t, changed, "storage_templates", 0, "name"))
	c.ok("DELETE", "/app_templates/own", nil)
	c.fails(404, "NotFoundError", "PUT", "/app_templates/own", js{})
	require.Len(t, c.items("/app_templates"), 3)
	require.Equal(t, "basic", c.ok("GET", "/app_templates/basic", nil)["name"])
}

func TestLists(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	for i := range 105 {
		_, err := array.CreateAppInstance(fmt.Sprintf("pv-%03d", 104-i), i%7+1)
		require.NoError(t, err)
	}
	names := func(query string) []any {
		t.Helper()
		var all []any
		for _, ai := range c.items("/app_instances" + query) {
			all = append(all, ai.(js)["name"])
		}
		return all
	}
	for query, want := range map[string]struct {
		first any
		count int
		total float64
	}{
		"":                                     {"pv-000", 100, 105},
		"?limit=0":                             {"pv-000", 100, 105},
		"?limit=3&offset=2":                    {"pv-002", 3, 105},
		"?offset=104":                          {"pv-104", 1, 105},
		"?offset=1000":                         {nil, 0, 105},
		"?limit=1000":                          {"pv-000", 105, 105},
		"?sort=-name":                          {"pv-104", 100, 105},
		"?filter=name=pv-007":                  {"pv-007", 1, 1},
		"?filter=name=pv-00":                   {nil, 0, 0},
		"?filter=match%28name%2C.%2A00.%2A%29": {"pv-000", 11, 11},
		"?filter=match(name,pv-01)&limit=2&offset=1":  {"pv-011", 2, 10},
		"?filter=admin_state=online&limit=1&offset=9": {"pv-009", 1, 105},
	} {
		a := c.do("GET", "/app_instances"+query, `{"params":{}}`)
		require.Equal(t, 200, a.status, "%s: %s", query, a.raw)
		about := a.body["metadata"].(js)
		require.EqualValues(t, want.total, about["total_count"], query)
		require.EqualValues(t, want.count, about["request_count"], query)
		require.Contains(t, about, "limit")
		require.Contains(t, about, "offset")
		require.NotContains(t, about, "total")
		all := names(query)
		require.Len(t, all, want.count, query)
		if want.count > 0 {
			require.Equal(t, want.first, all[0], query)
		}
	}
	for _, query := range []string{"?limit=-1", "?limit=1001", "?limit=x", "?offset=x", "?sort=nothing", "?filter=nothing=1",
		"?filter=name", "?filter=match(name,%5B)", "?filter=unmatch(name,x)"} {
		c.fails(400, "InvalidRequestError", "GET", "/app_instances"+query, nil)
	}
	sizes := c.items("/app_instances/pv-000/storage_instances/storage-1/volumes?sort=size&filter=name=volume-1")
	require.Len(t, sizes, 1, "nested lists, too")
	c.version = "v2.1"
	require.EqualValues(t, 105, c.do("GET", "/app_instances", nil).body["metadata"].(js)["total"])

	old := connect(t, dateratest.Start(t, dateratest.WithSoftwareVersion("3.2.9.0")))
	for _, name := range []string{"pv-1", "pv-2"} {
		old.ok("POST", "/app_instances", js{"name": name})
	}
	require.EqualValues(t, 2, old.do("GET", "/app_instances?filter=name=pv-1", nil).body["metadata"].(js)["total_count"],
		"products before 3.3 ignore the filter when they count")
}

func TestOldProduct(t *testing.T) {
	c := connect(t, dateratest.Start(t, dateratest.WithSoftwareVersion("3.2.10.1")))
	require.Equal(t, "3.2.10.1", c.ok("GET", "/system", nil)["sw_version"])
	c.fails(404, "InvalidRouteError", "GET", "/placement_policies", nil)
	c.fails(404, "InvalidRouteError", "GET", "/media_policies/hybrid", nil)
	body := simple("pv-1", 1)
	body["storage_instances"].([]js)[0]["volumes"].([]js)[0]["placement_policy"] = js{"path": "/placement_policies/default"}
	c.fails(422, "ValidationFailedError", "POST", "/app_instances", body)
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	require.NotContains(t, c.ok("GET", vol, nil), "placement_policy")
	c.fails(422, "ValidationFailedError", "POST", vol+"/snapshots", js{"type": "local"})
}

func TestPools(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	require.Len(t, c.ok("GET", "/access_network_ip_pools/default", nil)["network_paths"], 2)
	c.fails(400, "InvalidRequestError", "DELETE", "/access_network_ip_pools/default", nil)
	path := js{"name": "net_1", "start_ip": "10.0.0.1", "range": 10, "netmask": 24}
	c.ok("POST", "/access_network_ip_pools", js{"name": "fast", "network_paths": []js{path}})
	c.fails(409, "ConflictError", "POST", "/access_network_ip_pools", js{"name": "fast", "network_paths": []js{path}})
	require.Equal(t, []any{}, c.ok("POST", "/access_network_ip_pools", js{"name": "empty"})["network_paths"])
	require.Equal(t, "access_1", at(t, c.ok("PUT", "/access_network_ip_pools/empty", js{"network_paths": []js{{"start_ip": "10.0.1.1", "range": 10, "netmask": 24}}}),
		"network_paths", 0, "name"))
	c.ok("DELETE", "/access_network_ip_pools/empty", nil)
	c.fails(422, "ValidationFailedError", "POST", "/access_network_ip_pools", js{"name": "slow", "network_paths": []js{{"name": "net_1", "start_ip": "x", "range": 10, "netmask": 24}}})
	c.fails(422, "ValidationFailedError", "PUT", "/access_network_ip_pools/fast", js{"network_paths": []js{{"name": "net_1", "start_ip": "::1", "range": 10, "netmask": 24}}})
	require.Equal(t, "new", c.ok("PUT", "/access_network_ip_pools/fast", js{"descr": "new"})["descr"])
	c.fails(404, "NotFoundError", "PUT", "/access_network_ip_pools/none", js{})
	require.Len(t, c.items("/access_network_ip_pools"), 2)
	networks := "/access_network_ip_pools/fast/network_paths"
	require.Len(t, c.items(networks), 1)
	require.EqualValues(t, 1500, c.ok("GET", networks+"/net_1", nil)["mtu"])
	require.EqualValues(t, 9000, c.ok("PUT", networks+"/net_1", js{"mtu": 9000})["mtu"])
	require.EqualValues(t, "10.0.0.1", c.ok("GET", networks+"/net_1", nil)["start_ip"])
	c.fails(404, "NotFoundError", "PUT", networks+"/net_2", js{"mtu": 9000})
	c.fails(404, "NotFoundError", "PUT", "/access_network_ip_pools/none/network_paths/net_1", js{"mtu": 9000})
	c.fails(404, "NotFoundError", "GET", networks+"/net_2", nil)
	c.fails(404, "NotFoundError", "GET", "/access_network_ip_pools/none/network_paths", nil)
	c.fails(404, "NotFoundError", "GET", "/access_network_ip_pools/none/network_paths/net_1", nil)
	c.ok("DELETE", "/access_network_ip_pools/fast", nil)
}

func TestPolicies(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	c.ok("POST", "/media_policies", js{"name": "flash", "priority": 2})
	c.fails(409, "ConflictError", "POST", "/media_policies", js{"name": "flash", "priority": 2})
	require.EqualValues(t, 3, c.ok("PUT", "/media_policies/flash", js{"priority": 3})["priority"])
	c.fails(404, "NotFoundError", "PUT", "/media_policies/none", js{"priority": 3})
	require.Len(t, c.items("/media_policies"), 2)
	require.EqualValues(t, 3, c.ok("GET", "/media_policies/flash", nil)["priority"])
	c.ok("POST", "/placement_policies", js{"name": "fast", "max": []string{"/media_policies/flash"}})
	c.fails(409, "ConflictError", "POST", "/placement_policies", js{"name": "fast", "max": []string{}})
	c.fails(404, "NotFoundError", "POST", "/placement_policies", js{"name": "odd", "max": []string{"/media_policies/none"}})
	c.fails(404, "NotFoundError", "PUT", "/placement_policies/fast", js{"min": []string{"/media_policies/none"}})
	c.fails(404, "NotFoundError", "PUT", "/placement_policies/none", js{})
	require.Equal(t, "new", c.ok("PUT", "/placement_policies/fast", js{"descr": "new"})["descr"])
	require.Len(t, c.items("/placement_policies"), 2)
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	c.ok("PUT", vol, js{"placement_policy": js{"path": "/placement_policies/fast"}})
	require.Equal(t, "/placement_policies/fast", at(t, c.ok("GET", vol, nil), "placement_policy", "resolved_path"))
	c.fails(400, "InvalidRequestError", "DELETE", "/placement_policies/fast", nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/placement_policies/default", nil)
	c.ok("PUT", vol, js{"placement_policy": js{"path": "/placement_policies/default"}})
	c.ok("DELETE", "/placement_policies/fast", nil)
	c.fails(404, "NotFoundError", "GET", "/placement_policies/fast", nil)
	c.ok("DELETE", "/media_policies/flash", nil)
}

func TestUsers(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	made := c.ok("POST", "/users", js{"user_id": "operator", "full_name": "An operator", "password": "secret-1", "roles": []js{{"path": "/roles/viewer"}}})
	require.NotContains(t, made, "password")
	c.fails(409, "ConflictError", "POST", "/users", js{"user_id": "operator", "full_name": "An operator", "password": "secret-1"})
	require.Len(t, c.items("/users"), 2)
	other := &caller{t: t, base: array.URL, version: "v2.2", web: http.DefaultClient}
	other.key = other.do("PUT", "/login", js{"name": "operator", "password": "secret-1"}).body["key"].(string)
	other.fails(403, "PermissionDeniedError", "DELETE", "/users/operator", nil)
	require.Equal(t, "admin", c.ok("PUT", "/users/operator/roles", js{"path": "/roles/admin", "op": "add"})["role_id"], "the answer is the role")
	other.fails(400, "InvalidRequestError", "DELETE", "/users/operator", nil)
	require.Len(t, c.items("/users/operator/roles"), 2)
	c.fails(409, "ConflictError", "PUT", "/users/operator/roles", js{"path": "/roles/admin", "op": "add"})
	c.fails(404, "NotFoundError", "PUT", "/users/operator/roles", js{"path": "/roles/king", "op": "add"})
	c.ok("PUT", "/users/operator/roles", js{"path": "/roles/admin", "op": "remove"})
	c.fails(404, "NotFoundError", "PUT", "/users/operator/roles", js{"path": "/roles/admin", "op": "remove"})
	require.Equal(t, false, c.ok("PUT", "/users/operator", js{"enabled": false, "email": "o@example.com"})["enabled"])
	other.fails(401, "AuthFailedError", "PUT", "/login", js{"name": "operator", "password": "secret-1"})
	c.ok("DELETE", "/users/operator", nil)
	other.fails(401, "AuthFailedError", "GET", "/userinfo", nil)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		c.fails(404, "NotFoundError", method, "/users/operator", nil)
	}
	c.fails(404, "NotFoundError", "PUT", "/users/operator/roles", js{"path": "/roles/admin", "op": "add"})
	require.Equal(t, "admin", c.ok("GET", "/users/admin", nil)["user_id"])
	require.Len(t, c.items("/roles"), 3)
	require.Equal(t, "admin", c.ok("GET", "/roles/admin", nil)["role_id"])
	c.fails(404, "NotFoundError", "GET", "/roles/king", nil)
}

func TestSystem(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 10))
	require.NoError(t, array.SetCapacityInUse("pv-1", 2))
	require.Error(t, array.SetCapacityInUse("pv-9", 2))
	system := c.ok("GET", "/system", nil)
	require.EqualValues(t, 10*3<<30, system["total_provisioned_capacity"])
	require.EqualValues(t, 100<<40-2*3<<30, system["available_capacity"])
	require.IsType(t, "", system["last_reboot_timestamp"])
	nodes := c.items("/storage_nodes")
	require.Len(t, nodes, 3)
	require.Equal(t, nodes[0], any(c.ok("GET", at(t, nodes, 0, "path").(string), nil)))
	c.fails(404, "NotFoundError", "GET", "/storage_nodes/x", nil)
	require.Empty(t, c.items("/remote_providers"))
	require.Contains(t, c.ok("GET", "/time", nil), "time")
	require.NotNil(t, c.ok("GET", "/init/config", nil))
}
