package dateratest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestAPI is what the vendor's Python client and OpenStack's driver read out of the description of the API.
func TestAPI(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	for v, want := range map[string]struct {
		override bool
		maxSize  float64
	}{"v2.1": {false, 32768}, "v2.2": {true, 262144}, "v2.3": {true, 262144}} {
		t.Run(v, func(t *testing.T) {
			c.t, c.version = t, v
			api := c.do("GET", "/api", nil).body
			require.Equal(t, v, api["version"])
			create := at(t, api, "/app_instances", "create", "bodyParamSchema", "properties").(js)
			require.Contains(t, create, "clone_snapshot_src")
			require.Equal(t, want.override, create["template_override"] != nil, "cinder looks for it")
			for _, kind := range []string{"io", "hw"} {
				require.NotEmpty(t, at(t, api, "/metrics/"+kind+"/:metric", "read", "urlParamSchema", "metric", "enum"))
			}
			const volume = "/app_instances/:id/storage_instances/:storage_instance_name/volumes/:volume_name"
			require.Contains(t, api, volume+"/snapshots/:timestamp")
			require.Contains(t, api, "/tenants/:tenant_path(((?:[A-Za-z0-9_-])+(?:/[.A-Za-z0-9_-]+){0,}$))")
			require.NotContains(t, api, "/root")
			require.Equal(t, want.maxSize, at(t, api, volume, "update", "bodyParamSchema", "properties", "size", "maximum"))
			require.Contains(t, at(t, api, volume, "update", "urlParamSchema"), "storage_instance_name")
			for _, path := range []string{volume, volume + "/snapshots/:timestamp"} {
				require.Equal(t, path, at(t, api, path, "read", "path"))
				require.Equal(t, "read", at(t, api, path, "read", "op"))
			}
			require.Equal(t, []any{"name"}, at(t, api, "/app_instances", "create", "bodyParamSchema", "required"))
			require.NotContains(t, at(t, api, "/app_instances/:id", "update", "bodyParamSchema"), "required")
		})
	}
}
