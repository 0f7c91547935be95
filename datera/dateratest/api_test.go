package dateratest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestVersions(t *testing.T) {
	array := dateratest.Start(t)
	c := &caller{t: t, base: array.URL, version: "api_versions", web: http.DefaultClient}
	a := c.do("GET", "", nil)
	require.Equal(t, []any{"v2.1", "v2.2", "v2.3"}, a.body["api_versions"])
	for _, v := range []string{"v2.1", "v2.2", "v2.3"} {
		c := connect(t, array)
		c.version = v
		a := c.do("GET", "/system", nil)
		require.Equal(t, v, a.body["version"])
		require.EqualValues(t, 99, c.fails(404, "InvalidRouteError", "GET", "", nil)["code"], "the bare prefix, by which old clients probe")
	}
	for _, v := range []string{"v2", "v1", "v9.9"} {
		c.version = v
		c.fails(400, "UnsupportedVersionError", "GET", "/system", nil)
	}
	c.version = "elsewhere"
	c.fails(404, "InvalidRouteError", "GET", "/x", nil)
	c = connect(t, array)
	c.fails(404, "InvalidRouteError", "GET", "/app_instances/x/y/z", nil)
	c.fails(404, "InvalidRouteError", "PATCH", "/app_instances", nil)
	c.fails(404, "InvalidRouteError", "GET", "//app_instances", nil)
}

func TestSessions(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	array := dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.Now = func() time.Time { return now } }),
		dateratest.WithUser("operator", "se-cret"), dateratest.WithSessionLifetime(time.Minute))
	c := &caller{t: t, base: array.URL, version: "v2.2", web: http.DefaultClient, tenant: "/root/not-made-yet"}
	require.Regexp(t, "valid session", c.fails(401, "AuthFailedError", "GET", "/system", nil)["message"])
	c.fails(401, "AuthFailedError", "PUT", "/login", js{"name": "operator", "password": "wrong"})
	c.fails(401, "AuthFailedError", "PUT", "/login", js{"name": "nobody", "password": "se-cret"})
	c.fails(422, "ValidationFailedError", "PUT", "/login", js{"name": "operator"})

	byJSON := c.do("PUT", "/login", js{"name": "operator", "password": "se-cret"})
	require.Regexp(t, "^[0-9a-f]{32}$", byJSON.body["key"])
	require.NotContains(t, byJSON.body, "data", "a login is not wrapped")
	require.Contains(t, byJSON.body, "request_time")
	resp, err := c.send("PUT", "/v2.2/login", strings.NewReader(url.Values{"name": {"operator"}, "password": {"se-cret"}}.Encode()),
		"application/x-www-form-urlencoded")
	require.NoError(t, err)
	byForm := c.read(resp)
	require.Equal(t, 200, byForm.status, "%s", byForm.raw)
	require.NotEqual(t, byJSON.body["key"], byForm.body["key"], "sessions of one user coexist")

	c.tenant = ""
	for _, key := range []any{byJSON.body["key"], byForm.body["key"]} {
		c.key = key.(string)
		require.Equal(t, "operator", c.ok("GET", "/userinfo", nil)["user_id"])
	}
	for range 3 {
		now = now.Add(50 * time.Second)
		c.ok("GET", "/system", nil) // each use begins the lifetime anew
	}
	now = now.Add(time.Minute)
	c.fails(401, "AuthFailedError", "GET", "/system", nil)
	c.key = byJSON.body["key"].(string)
	c.fails(401, "AuthFailedError", "GET", "/system", nil)

	c.key = c.do("PUT", "/login", js{"name": "operator", "password": "se-cret"}).body["key"].(string)
	require.JSONEq(t, `{}`, string(c.do("PUT", "/logout", nil).raw))
	c.fails(401, "AuthFailedError", "GET", "/system", nil)
	c.key = c.do("PUT", "/login", js{"name": "operator", "password": "se-cret"}).body["key"].(string)
	array.ExpireKeys()
	c.fails(401, "AuthFailedError", "GET", "/system", nil)
	for _, r := range array.Requests() {
		require.NotContains(t, r.Body, "password")
	}
}

func TestTenants(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	require.Equal(t, "/root/OS-1", c.ok("POST", "/tenants", js{"name": "OS-1"})["path"])
	c.fails(409, "ConflictError", "POST", "/tenants", js{"name": "OS-1"})
	c.fails(409, "ConflictError", "POST", "/tenants", js{"name": "root"})
	c.ok("POST", "/tenants", js{"name": "below", "parent_path": "/root/OS-1"})
	c.fails(404, "NotFoundError", "POST", "/tenants", js{"name": "below", "parent_path": "/root/OS-2"})
	require.Equal(t, []any{"/root/OS-1/below"}, c.ok("GET", "/tenants/root/OS-1", nil)["subtenants"])
	require.Equal(t, "new", c.ok("PUT", "/tenants/root/OS-1", js{"descr": "new"})["descr"])
	require.Len(t, c.items("/tenants"), 3)
	c.fails(404, "NotFoundError", "GET", "/tenants/root/OS-2", nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/tenants/root", nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/tenants/root/OS-1", nil)

	c.tenant = "/root/OS-2"
	c.fails(404, "NotFoundError", "GET", "/app_instances", nil)
	c.tenant = "/root/OS-1"
	require.Equal(t, "/root/OS-1", c.ok("POST", "/app_instances", simple("pv-1", 1))["tenant"])
	c.fails(404, "NotFoundError", "GET", "/tenants/root", nil)
	c.tenant = ""
	require.Empty(t, c.items("/app_instances"), "each tenant has its own")
	c.ok("DELETE", "/tenants/root/OS-1/below", nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/tenants/root/OS-1", nil)
}

func TestAppInstanceShape(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	a := c.do("POST", "/app_instances", simple("pv-1", 16))
	require.Equal(t, 200, a.status, "%s", a.raw)
	data := a.body["data"].(js)
	id := data["id"].(string)
	require.Equal(t, "/app_instances/"+id, a.body["path"])
	require.Equal(t, "/root", a.body["tenant"])
	require.IsType(t, 0.0, a.body["request_time"])
	for name, want := range map[string]any{"name": "pv-1", "path": "/app_instances/" + id, "uuid": id,
		"admin_state": "online", "create_mode": "kubernetes", "access_control_mode": "deny_all", "health": "ok", "snapshots": []any{},
		"causes": []any{}, "storage_pool": []any{}, "app_template": js{"path": "", "resolved_path": "", "resolved_tenant": ""}} {
		require.Equal(t, want, data[name], name)
	}
	storage := at(t, data, "storage_instances", 0).(js)
	at1 := "/app_instances/" + id + "/storage_instances/storage-1"
	require.Equal(t, at1, storage["path"])
	require.Equal(t, "available", storage["op_state"])
	require.Equal(t, js{"path": at1 + "/acl_policy", "initiators": []any{}, "initiator_groups": []any{}}, storage["acl_policy"])
	require.Equal(t, []any{"172.28.41.43", "172.29.41.56"}, at(t, storage, "access", "ips"))
	require.NotContains(t, storage["access"], "port")
	require.Regexp(t, `^iqn\.2013-05\.com\.daterainc:tc:01:sn:[0-9a-f]{16}$`, at(t, storage, "access", "iqn"))
	require.Equal(t, "(hidden)", at(t, storage, "auth", "target_pswd"))
	require.Equal(t, "/root", at(t, storage, "ip_pool", "resolved_tenant"))
	volume := at(t, storage, "volumes", 0).(js)
	require.Equal(t, at1+"/volumes/volume-1", volume["path"])
	require.NotContains(t, volume, "performance_policy", "an empty one is none")
	require.NotContains(t, volume, "lun")
	require.Equal(t, "/placement_policies/default", at(t, volume, "placement_policy", "resolved_path"))
	require.EqualValues(t, 0, volume["capacity_in_use"])
	require.NotContains(t, volume, "op_status", "idle")

	require.Equal(t, data, c.ok("GET", "/app_instances/pv-1", nil), "by name")
	require.Equal(t, data, c.ok("GET", "/app_instances/"+id, nil), "by id")
	require.Equal(t, []any{data}, c.items("/app_instances"))
	require.Equal(t, storage, c.ok("GET", si, nil))
	require.Equal(t, []any{storage}, c.items("/app_instances/"+id+"/storage_instances"))
	require.Equal(t, volume, c.ok("GET", vol, nil))
	require.Equal(t, []any{volume}, c.items(si+"/volumes"))
	c.version = "v2.1"
	require.NotContains(t, c.ok("GET", vol, nil), "placement_policy")
	require.Equal(t, "00000000-0000-0000-0000-000000000000", c.ok("GET", "/app_instances/pv-1", nil)["uuid"])
	own := "0f2a0e1c-0000-4000-8000-000000000001"
	for _, c.version = range []string{"v2.2", "v2.1"} {
		body := simple("pv-"+c.version, 1)
		body["uuid"] = strings.Replace(own, "0f2a", "0f"+c.version[1:2]+c.version[3:], 1)
		require.Equal(t, body["uuid"], c.ok("POST", "/app_instances", body)["uuid"], "a client's own")
	}
}

func TestAppInstanceRefusals(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	with := func(change func(js)) js {
		body := simple("pv-2", 16)
		change(body)
		return body
	}
	storage := func(b js) js { return b["storage_instances"].([]js)[0] }
	volume := func(b js) js { return storage(b)["volumes"].([]js)[0] }
	for name, test := range map[string]struct {
		body   any
		status int
		says   string
	}{
		"name taken":         {simple("pv-1", 16), 409, "exists already"},
		"no name":            {js{}, 422, `"name" is missing`},
		"bad name":           {simple("1/2", 16), 422, "name: "},
		"name is a number":   {js{"name": 5}, 422, "must be a string, not a number"},
		"unknown":            {with(func(b js) { b["colour"] = "red" }), 422, `unknown property "colour"`},
		"unknown, nested":    {with(func(b js) { volume(b)["lun"] = 1 }), 422, `storage_instances[0].volumes[0]: unknown property "lun"`},
		"fraction":           {with(func(b js) { volume(b)["size"] = 1.5 }), 422, "must be an integer"},
		"size as text":       {with(func(b js) { volume(b)["size"] = "16" }), 422, "must be an integer, not a string"},
		"too big":            {with(func(b js) { volume(b)["size"] = 262145 }), 422, "between 1 and 262144"},
		"no size":            {with(func(b js) { delete(volume(b), "size") }), 422, `"size" is missing`},
		"six replicas":       {with(func(b js) { volume(b)["replica_count"] = 6 }), 422, "between 1 and 5"},
		"placement":          {with(func(b js) { volume(b)["placement_mode"] = "slow" }), 422, "is not one of"},
		"volume twice":       {with(func(b js) { storage(b)["volumes"] = append(storage(b)["volumes"].([]js), volume(b)) }), 409, "exists already"},
		"storage twice":      {with(func(b js) { b["storage_instances"] = append(b["storage_instances"].([]js), storage(b)) }), 409, "exists already"},
		"no such pool":       {with(func(b js) { storage(b)["ip_pool"] = js{"path": "/access_network_ip_pools/x"} }), 404, "does not exist"},
		"no such policy":     {with(func(b js) { volume(b)["placement_policy"] = js{"path": "/placement_policies/x"} }), 404, "does not exist"},
		"no such initiator":  {with(func(b js) { storage(b)["acl_policy"] = js{"initiators": []js{{"path": "/initiators/x"}}} }), 404, "does not exist"},
		"chap, no user":      {with(func(b js) { storage(b)["auth"] = js{"type": "chap"} }), 400, "needs target_user_name"},
		"no such template":   {js{"name": "pv-2", "app_template": js{"path": "/app_templates/x"}}, 404, "does not exist"},
		"two sources":        {with(func(b js) { b["clone_src"] = js{"path": "/app_instances/pv-1"} }), 400, "only one of"},
		"clone of nothing":   {js{"name": "pv-2", "clone_src": js{"path": "/app_instances/x"}}, 404, "does not exist"},
		"clone of a volume":  {js{"name": "pv-2", "clone_src": js{"path": vol}}, 400, "not the path of an app instance"},
		"volume of an app":   {js{"name": "pv-2", "clone_volume_src": js{"path": "/app_instances/pv-1"}}, 400, "not the path of a volume"},
		"snapshot of a vol":  {js{"name": "pv-2", "clone_snapshot_src": js{"path": vol}}, 400, "not the path of a snapshot"},
		"override alone":     {js{"name": "pv-2", "template_override": js{"storage_instances": js{}}}, 400, "needs an app_template"},
		"an array":           {"[]", 400, "not a JSON object"},
		"null":               {"null", 400, "not a JSON object"},
		"half":               {`{"name":`, 400, "not a JSON object"},
		"two":                {`{} {}`, 400, "something after"},
		"too long":           {`{"descr":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "longer than"},
		"long descr":         {js{"name": "pv-2", "descr": strings.Repeat("x", 129)}, 422, "descr: "},
		"wrong kind of list": {js{"name": "pv-2", "storage_instances": js{}}, 422, "must be an array, not an object"},
		"wrong kind of ref":  {js{"name": "pv-2", "clone_src": "/app_instances/pv-1"}, 422, "must be an object, not a string"},
		"wrong kind of flag": {js{"name": "pv-2", "descr": true}, 422, "must be a string, not a boolean"},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			a := c.do("POST", "/app_instances", test.body)
			require.Equal(t, test.status, a.status, "%s", a.raw)
			require.Contains(t, a.body["message"], test.says)
			require.Equal(t, []string{"pv-1"}, array.AppInstances("/root"), "nothing was made")
		})
	}
}

func TestLifeOfAnAppInstance(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	c.ok("POST", "/initiators", js{"id": iqn1, "name": "node1"})
	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + iqn1}}})
	require.NoError(t, array.SetActiveInitiators("pv-1", iqn1))
	require.Error(t, array.SetActiveInitiators("pv-9", iqn1))
	require.Equal(t, []any{iqn1}, c.ok("GET", si, nil)["active_initiators"])

	require.Contains(t, c.fails(400, "InvalidRequestError", "DELETE", "/app_instances/pv-1", js{"force": true})["message"], "offline")
	require.Contains(t, c.fails(400, "InvalidRequestError", "PUT", "/app_instances/pv-1", js{"admin_state": "offline"})["message"], iqn1)
	c.fails(400, "InvalidRequestError", "PUT", si, js{"admin_state": "offline"})
	c.fails(400, "InvalidRequestError", "DELETE", si, nil)
	c.fails(400, "InvalidRequestError", "DELETE", vol, nil)
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	off := c.ok("GET", si, nil)
	require.Equal(t, "offline", off["admin_state"])
	require.Equal(t, "unavailable", off["op_state"])
	require.Empty(t, off["active_initiators"])
	require.NotEmpty(t, at(t, off, "access", "ips"), "addresses stay")
	require.Len(t, at(t, off, "acl_policy", "initiators"), 1, "and so does the ACL")
	c.fails(400, "InvalidRequestError", "PUT", si, js{"admin_state": "online"})
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
	require.Equal(t, "available", c.ok("GET", si, nil)["op_state"])
	require.Empty(t, c.ok("GET", si, nil)["active_initiators"], "a session that ended stays ended")

	c.ok("POST", "/app_instances", js{"name": "pv-2"})
	c.fails(409, "ConflictError", "PUT", "/app_instances/pv-1", js{"name": "pv-2"})
	renamed := c.ok("PUT", "/app_instances/pv-1", js{"name": "pv-1b", "descr": "new", "repair_priority": "high",
		"snapshot_policies": []js{{"name": "daily", "interval": "1day", "retention_count": 7}}})
	require.Equal(t, "new", renamed["descr"])
	require.Equal(t, "high", renamed["repair_priority"])
	require.Len(t, renamed["snapshot_policies"], 1)
	require.Contains(t, c.fails(404, "NotFoundError", "GET", "/app_instances/pv-1", nil)["message"], "does not exist")
	c.ok("PUT", "/app_instances/pv-1b", js{"admin_state": "offline"})
	require.Equal(t, "pv-1b", c.ok("DELETE", "/app_instances/pv-1b", nil)["name"], "the answer is what was deleted")
	c.fails(404, "NotFoundError", "DELETE", "/app_instances/pv-1b", nil)
}

func TestPieceByPiece(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", js{"name": "pv-1"})
	c.ok("POST", "/app_instances/pv-1/storage_instances", js{"name": "storage-1"})
	c.fails(409, "ConflictError", "POST", "/app_instances/pv-1/storage_instances", js{"name": "storage-1"})
	require.EqualValues(t, 3, c.ok("POST", si+"/volumes", js{"name": "volume-1", "size": 5})["replica_count"])
	c.fails(409, "ConflictError", "POST", si+"/volumes", js{"name": "volume-1", "size": 5})
	c.ok("POST", si+"/volumes", js{"name": "volume-2", "size": 5, "placement_policy": js{"path": "/placement_policies/default", "resolved_path": "", "resolved_tenant": ""}})
	require.Len(t, c.items(si+"/volumes"), 2)
	c.fails(404, "NotFoundError", "GET", si+"/volumes/volume-9", nil)
	c.fails(404, "NotFoundError", "GET", "/app_instances/pv-1/storage_instances/storage-9", nil)
	for _, below := range []string{"", "/acl_policy", "/auth", "/metadata", "/volumes", "/acl_policy/initiators", "/acl_policy/initiator_groups"} {
		c.fails(404, "NotFoundError", "GET", "/app_instances/pv-9/storage_instances/storage-1"+below, nil)
	}
	c.ok("PUT", "/app_instances/pv-1", js{"storage_instances": []js{{"name": "storage-2"}, {"name": "storage-1", "volumes": []js{{"name": "volume-3", "size": 1}}}}})
	require.Len(t, c.items(si+"/volumes"), 3)
	require.Len(t, c.items("/app_instances/pv-1/storage_instances"), 2)

	c.fails(400, "InvalidRequestError", "PUT", si, js{"access_control_mode": "allow_all"})
	c.ok("POST", "/access_network_ip_pools", js{"name": "fast", "network_paths": []js{{"name": "net_1", "start_ip": "10.0.0.1", "range": 10, "netmask": 24}}})
	c.fails(400, "InvalidRequestError", "PUT", si, js{"ip_pool": js{"path": "/access_network_ip_pools/fast"}})
	c.ok("PUT", si, js{"ip_pool": js{"path": "/access_network_ip_pools/default"}})
	c.ok("PUT", si, js{"admin_state": "offline"})
	require.Equal(t, []any{"10.0.0.1"}, at(t, c.ok("PUT", si, js{"ip_pool": js{"path": "/access_network_ip_pools/fast"}}), "access", "ips"))
	c.fails(400, "InvalidRequestError", "DELETE", "/access_network_ip_pools/fast", nil)
	c.ok("DELETE", si+"/volumes/volume-2", nil)
	c.ok("DELETE", si, nil)
	c.ok("DELETE", "/app_instances/pv-1/storage_instances/storage-2", js{"force": true})
	require.Empty(t, c.items("/app_instances/pv-1/storage_instances"))
}

func TestMetadata(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	meta := "/app_instances/pv-1/metadata"
	require.Equal(t, js{}, c.ok("GET", meta, nil))
	require.Equal(t, js{"a": "1", "path": "/own", ":authority": "x"}, c.ok("PUT", meta, js{"a": "1", "path": "/own", ":authority": "x"}))
	require.Equal(t, js{"a": "", "b": true, "path": "/own", ":authority": "x"}, c.ok("PUT", meta, js{"a": "", "b": true}))
	require.Contains(t, c.fails(400, "InvalidRequestError", "PUT", meta, js{"long": strings.Repeat("x", 2048)})["message"], "more than 2048")
	require.Len(t, c.ok("GET", meta, nil), 4, "a refused change changes nothing")
	require.NoError(t, array.SetMetadata("pv-1", "formatted", "true"))
	seen, _ := array.AppInstance("/root", "pv-1")
	require.Equal(t, "true", seen.Metadata["formatted"])

	eco := "/app_instances/pv-1/int_ecosystem_data"
	require.Equal(t, "true", at(t, c.ok("GET", eco, nil), "data", "formatted"), "one store for both")
	require.Equal(t, "false", at(t, c.ok("PUT", eco, js{"data": js{"formatted": "false"}}), "data", "formatted"))
	c.fails(422, "ValidationFailedError", "PUT", eco, js{"formatted": "x"})
	require.Equal(t, "pv-1", at(t, c.items("/app_instance_int_ecosystem_data"), 0, "name"))
	require.Equal(t, js{"x": "y"}, c.ok("PUT", si+"/metadata", js{"x": "y"}))
	require.Equal(t, js{"x": "y"}, c.ok("GET", si+"/metadata", nil))
	c.fails(404, "NotFoundError", "GET", "/app_instances/pv-9/metadata", nil)
	c.fails(404, "NotFoundError", "PUT", "/app_instances/pv-9/metadata", js{})
}

func TestResizeAndQoS(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	c.ok("POST", "/app_instances", simple("pv-1", 16))
	require.EqualValues(t, 32, c.ok("PUT", vol, js{"size": 32})["size"])
	require.EqualValues(t, 32, c.ok("PUT", vol, js{"size": 32})["size"])
	require.Contains(t, c.fails(400, "InvalidRequestError", "PUT", vol, js{"size": 31})["message"], "cannot shrink from 32 to 31")
	require.EqualValues(t, 262144, c.ok("PUT", vol, js{"size": 262144})["size"])
	c.fails(422, "ValidationFailedError", "PUT", vol, js{"size": 262145})
	c.version = "v2.1"
	c.fails(422, "ValidationFailedError", "PUT", vol, js{"size": 32769})
	c.version = "v2.2"
	require.EqualValues(t, 4, c.ok("PUT", vol, js{"replica_count": 4, "placement_mode": "all_flash"})["replica_count"])
	c.fails(400, "InvalidRequestError", "PUT", vol, js{"replica_count": 3})
	c.fails(404, "NotFoundError", "PUT", vol, js{"placement_policy": js{"path": "/placement_policies/x"}})

	qos := vol + "/performance_policy"
	c.fails(404, "NotFoundError", "GET", qos, nil)
	c.fails(404, "NotFoundError", "PUT", qos, js{"total_iops_max": 1})
	c.fails(404, "NotFoundError", "DELETE", qos, nil)
	require.EqualValues(t, 1000, c.ok("POST", qos, js{"total_iops_max": 1000, "read_iops_max": 0})["total_iops_max"])
	c.fails(409, "ConflictError", "POST", qos, js{"total_iops_max": 1})
	changed := c.ok("PUT", qos, js{"total_bandwidth_max": 2048})
	require.EqualValues(t, 1000, changed["total_iops_max"])
	require.EqualValues(t, 2048, changed["total_bandwidth_max"])
	require.Equal(t, changed, c.ok("GET", vol, nil)["performance_policy"])
	c.fails(422, "ValidationFailedError", "PUT", qos, js{"total_bandwidth_max": 10240001})
	c.ok("DELETE", qos, nil)
	c.fails(404, "NotFoundError", "GET", qos, nil)
}
