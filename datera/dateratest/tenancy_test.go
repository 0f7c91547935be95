package dateratest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestTenantByItsOwnPath(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	path := c.ok("POST", "/tenants", js{"name": "b3b5d4a8-0000-4000-8000-000000000001"})["path"].(string)
	seen := c.ok("GET", path, nil)
	require.Equal(t, path, seen["path"])
	require.Equal(t, seen, c.ok("GET", "/tenants"+path, nil))
	require.Equal(t, []any{path}, c.ok("GET", "/root", nil)["subtenants"])
	require.Equal(t, "new", c.ok("PUT", path, js{"descr": "new"})["descr"])
	c.ok("DELETE", path, nil)
	c.fails(404, "NotFoundError", "GET", path, nil)
	c.fails(400, "InvalidRequestError", "DELETE", "/root", nil)
}

func TestListsOverAllTenants(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	c.ok("POST", "/tenants", js{"name": "shop"})
	path := js{"start_ip": "10.0.0.1", "range": 10, "netmask": 24}
	for _, tenant := range []string{"/root", "/root/shop"} {
		c.tenant = tenant
		c.ok("POST", "/app_instances", simple("pv-1", 1))
		c.ok("POST", "/initiators", js{"id": iqn1, "name": "node1", "force": true})
		c.ok("POST", "/initiator_groups", js{"name": "group-1"})
		c.ok("POST", "/access_network_ip_pools", js{"name": "fast", "network_paths": []js{path}})
		c.ok("POST", "/app_templates", js{"name": "gold"})
	}
	for _, version := range []string{"v2.1", "v2.2"} {
		c.version = version
		for collection, filter := range map[string]string{"/app_instances": "name=pv-1", "/initiators": "name=node1", "/initiator_groups": "name=group-1",
			"/access_network_ip_pools": "name=fast", "/app_templates": "name=gold"} {
			c.tenant = "all"
			a := c.do("GET", collection+"?filter="+filter, nil)
			require.Equal(t, "all", a.body["tenant"])
			list := a.body["data"].([]any)
			require.Len(t, list, 2, collection)
			require.Equal(t, "/root", at(t, list, 0, "tenant"), collection)
			require.Equal(t, "/root/shop", at(t, list, 1, "tenant"), collection)
		}
	}
	require.Len(t, c.items("/app_instance_int_ecosystem_data"), 2)
	require.Len(t, c.items("/tenants"), 2)
	require.Len(t, c.items("/storage_nodes"), 3, "what belongs to no tenant is as ever")
	c.fails(400, "InvalidRequestError", "POST", "/app_instances", simple("pv-2", 1))
}

// TestRights are what users without the role of an administrator get.
func TestRights(t *testing.T) {
	array := dateratest.Start(t)
	admin := connect(t, array)
	for _, name := range []string{"shop", "bank"} {
		admin.ok("POST", "/tenants", js{"name": name})
	}
	admin.tenant = "/root/bank"
	admin.ok("POST", "/app_instances", simple("secret", 1))
	admin.tenant = ""
	as := func(user, role string) *caller {
		admin.ok("POST", "/users", js{"user_id": user, "full_name": "A user", "password": "secret-1",
			"roles": []js{{"path": "/roles/" + role}}, "tenants": []js{{"path": "/root/shop"}}})
		c := &caller{t: t, base: array.URL, version: "v2.2", web: http.DefaultClient}
		c.key = c.do("PUT", "/login", js{"name": user, "password": "secret-1"}).body["key"].(string)
		c.tenant = "/root/shop"
		return c
	}
	c := as("seller", "operator")
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	c.ok("GET", "/system", nil)
	require.Equal(t, "seller", c.ok("GET", "/userinfo", nil)["user_id"])
	for _, path := range []string{"/tenants", "/tenants/root/shop", "/root/shop", "/users", "/users/seller", "/roles"} {
		c.fails(403, "PermissionDeniedError", "GET", path, nil)
	}
	c.fails(403, "PermissionDeniedError", "PUT", "/system", js{"callhome_enabled": true})
	for _, tenant := range []string{"", "/root", "/root/bank", "/root/none", "/root/shopping"} {
		c.tenant = tenant
		c.fails(403, "PermissionDeniedError", "GET", "/app_instances", nil)
	}
	c.tenant = "all"
	require.Len(t, c.items("/app_instances"), 1, "only of his own tenants")
	c.tenant = "/root/shop/none"
	c.fails(404, "NotFoundError", "GET", "/app_instances", nil)

	c = as("clerk", "viewer")
	require.Len(t, c.items("/app_instances"), 1)
	c.fails(403, "PermissionDeniedError", "PUT", "/app_instances/pv-1", js{"descr": "mine"})
	require.Equal(t, 200, c.do("PUT", "/logout", nil).status)

	c = as("boss", "admin")
	require.Len(t, c.items("/tenants"), 1)
	c.fails(404, "NotFoundError", "GET", "/tenants/root/bank", nil)
	admin.fails(404, "NotFoundError", "PUT", "/users/clerk", js{"tenants": []js{{"path": "/root/none"}}})
	admin.fails(404, "NotFoundError", "PUT", "/users/clerk", js{"roles": []js{{"path": "/roles/king"}}})
	admin.ok("PUT", "/users/clerk", js{"roles": []js{{"path": "/roles/operator"}}, "tenants": []js{{"path": "/root"}}})
	require.Equal(t, []any{js{"path": "/root"}}, admin.ok("GET", "/users/clerk", nil)["tenants"])
}
