package dateratest_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestPartsOfTemplates goes through a template piece by piece, as the vendor's clients can.
func TestPartsOfTemplates(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	const (
		template = "/app_templates/gold"
		storage  = template + "/storage_templates/storage-1"
		volume   = storage + "/volume_templates/volume-1"
	)
	c.ok("POST", "/app_templates", js{"name": "gold"})
	made := c.ok("POST", template+"/storage_templates", js{"name": "storage-1", "ip_pool": "/access_network_ip_pools/default"})
	require.Equal(t, storage, made["path"])
	require.Equal(t, js{"path": "/access_network_ip_pools/default"}, made["ip_pool"], "a string is a reference, too")
	c.fails(409, "ConflictError", "POST", template+"/storage_templates", js{"name": "storage-1"})
	c.ok("PUT", storage, js{"auth": js{}, "ip_pool": js{}})
	c.fails(422, "ValidationFailedError", "POST", template+"/storage_templates", js{"name": "storage-2", "auth": js{"target_user_name": "user"}})
	require.Equal(t, "chap", c.ok("PUT", storage+"/auth", js{"type": "chap", "target_user_name": "user", "target_pswd": "123456789012"})["type"])
	require.Equal(t, "user", c.ok("GET", storage+"/auth", nil)["target_user_name"])

	c.ok("POST", storage+"/volume_templates", js{"name": "volume-1", "size": 5})
	c.fails(409, "ConflictError", "POST", storage+"/volume_templates", js{"name": "volume-1", "size": 5})
	require.EqualValues(t, 7, c.ok("PUT", volume, js{"size": 7})["size"])
	c.ok("POST", volume+"/performance_policy", js{"total_iops_max": 100})
	require.EqualValues(t, 100, at(t, c.items(storage+"/volume_templates"), 0, "performance_policy", "total_iops_max"))
	for _, at := range []string{template, volume} {
		c.ok("POST", at+"/snapshot_policies", js{"name": "daily", "interval": "1day", "retention_count": 7})
		require.EqualValues(t, 9, c.ok("PUT", at+"/snapshot_policies/daily", js{"retention_count": 9})["retention_count"])
		require.Len(t, c.items(at+"/snapshot_policies"), 1)
	}
	require.Equal(t, []any{}, c.ok("GET", template, nil)["app_instances"])

	ai := c.ok("POST", "/app_instances", js{"name": "pv-1", "app_template": js{"path": template}})
	require.EqualValues(t, 7, at(t, ai, "storage_instances", 0, "volumes", 0, "size"))
	require.Equal(t, "chap", at(t, ai, "storage_instances", 0, "auth", "type"))
	require.Equal(t, []any{js{"path": ai["path"]}}, c.ok("GET", template, nil)["app_instances"])
	c.ok("DELETE", vol+"/snapshot_policies/daily", nil)
	require.Len(t, c.items(volume+"/snapshot_policies"), 1, "the template has its own")
	c.ok("POST", "/app_templates", js{"name": "copy", "copy_from": js{"path": template}})
	c.ok("PUT", "/app_templates/copy/storage_templates/storage-1/volume_templates/volume-1", js{"size": 9})
	require.EqualValues(t, 7, c.ok("GET", volume, nil)["size"], "a copy is a copy")

	c.ok("POST", "/tenants", js{"name": "sub"})
	c.tenant = "/root/sub"
	require.EqualValues(t, 7, c.ok("GET", volume, nil)["size"], "inherited")
	for _, at := range []string{storage, volume, storage + "/auth", volume + "/performance_policy"} {
		c.fails(400, "InvalidRequestError", "PUT", at, js{})
	}
	c.tenant = ""
	c.ok("DELETE", volume+"/performance_policy", nil)
	c.ok("DELETE", volume, nil)
	c.ok("DELETE", storage, nil)
	require.Empty(t, c.items(template+"/storage_templates"))
	for _, at := range []string{storage, volume, storage + "/auth", storage + "/volume_templates", volume + "/performance_policy",
		volume + "/snapshot_policies", "/app_templates/none/storage_templates", "/app_templates/none/snapshot_policies"} {
		c.fails(404, "NotFoundError", "GET", at, nil)
	}
}

// TestPartsOfTheSystem reads what clients show to administrators, and changes what they change.
func TestPartsOfTheSystem(t *testing.T) {
	dir := t.TempDir()
	array, err := dateratest.New(dateratest.Options{StateDir: dir})
	require.NoError(t, err)
	require.NoError(t, array.Listen("127.0.0.1:0", nil))
	c := connect(t, array)
	c.ok("POST", "/app_instances", simple("pv-1", 1))

	require.Equal(t, "172.29.41.56", at(t, c.ok("GET", "/system/network", nil), "access_vip", "network_paths", 1, "ip"))
	for _, n := range []string{"access_vip", "mgmt_vip", "internal_network"} {
		paths := c.items("/system/network/" + n + "/network_paths")
		require.NotEmpty(t, paths)
		require.Equal(t, paths[0], any(c.ok("GET", at(t, paths, 0, "path").(string), nil)))
		c.fails(404, "NotFoundError", "GET", "/system/network/"+n+"/network_paths/none", nil)
	}
	require.EqualValues(t, 9000, c.ok("PUT", "/system/network/mgmt_vip/network_paths/mgmt_1", js{"mtu": 9000})["mtu"])
	c.fails(404, "NotFoundError", "PUT", "/system/network/access_vip/network_paths/none", js{"mtu": 9000})
	require.Equal(t, true, c.ok("PUT", "/system", js{"callhome_enabled": true})["callhome_enabled"])
	require.Equal(t, js{"path": "/system/http_proxy", "enabled": false, "host": "proxy", "port": 8080.0, "user": "", "password": "(hidden)"},
		c.ok("PUT", "/system/http_proxy", js{"host": "proxy", "password": "secret-1"}))

	node := at(t, c.items("/storage_nodes"), 0).(js)
	require.Equal(t, "online", node["op_state"])
	for _, collection := range []string{"hdds", "nics", "flash_devices", "boot_drives"} {
		devices := c.items(node["path"].(string) + "/" + collection)
		require.Equal(t, node[collection], any(devices))
		require.Equal(t, devices[0], any(c.ok("GET", at(t, devices, 0, "path").(string), nil)))
		c.fails(404, "NotFoundError", "GET", node["path"].(string)+"/"+collection+"/none", nil)
		c.fails(404, "NotFoundError", "GET", "/storage_nodes/none/"+collection, nil)
	}
	require.Equal(t, node["subsystem_states"], any(c.ok("GET", node["path"].(string)+"/subsystem_states", nil)))
	require.Equal(t, "offline", c.ok("PUT", node["path"].(string), js{"admin_state": "offline"})["op_state"])
	c.fails(404, "NotFoundError", "PUT", "/storage_nodes/none", js{})

	for _, path := range []string{"/metrics/io/iops_read", "/metrics/io/iops_read/latest"} {
		series := c.items(path + "?path=/app_instances")
		require.Len(t, series, 1)
		require.EqualValues(t, 0, at(t, series, 0, "points", 0, "value"))
	}
	require.Len(t, c.items("/metrics/hw/cpu_usage"), 3)
	require.Equal(t, "/system", at(t, c.items("/metrics/io/reads?path=/system"), 0, "entity_path"))
	c.fails(404, "NotFoundError", "GET", "/metrics/io/dreams", nil)
	for _, empty := range []string{"/events/system", "/events/user", "/audit_logs", "/system/ntp_servers", "/privileges"} {
		require.Empty(t, c.items(empty))
	}
	c.fails(404, "NotFoundError", "GET", "/event_logs/1", nil)

	c.version = "v2.1"
	c.fails(404, "InvalidRouteError", "GET", "/remote_providers", nil)
	c.version = "v2.2"
	made := c.ok("POST", "/remote_providers", js{"remote_type": "AWS S3", "label": "away", "access_key": "a", "secret_key": "b"})
	require.NotContains(t, made, "secret_key")
	require.Equal(t, []any{made}, c.items("/remote_providers"))
	require.Equal(t, "off", c.ok("PUT", made["path"].(string), js{"label": "off"})["label"])
	require.Equal(t, js{"uuid": made["uuid"]}, c.ok("PUT", made["path"].(string)+"/refresh", js{}))
	c.fails(404, "NotFoundError", "PUT", made["path"].(string)+"/operations/1", js{"action": "abort"})
	require.NoError(t, array.Close(t.Context()))

	array, err = dateratest.New(dateratest.Options{StateDir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, array.Close(context.Background())) })
	kept, err := array.Do("/root", "GET", "/system/http_proxy", nil)
	require.NoError(t, err)
	require.Equal(t, "proxy", kept["host"], "it outlives a restart")
	_, err = array.Do("/root", "DELETE", made["path"].(string), nil)
	require.NoError(t, err)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		_, err = array.Do("/root", method, made["path"].(string), js{})
		require.ErrorContains(t, err, "does not exist", method)
	}
}
