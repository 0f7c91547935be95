package driver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"datera-flexvolume/datera"
)

const kubeSystemUID = "0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21"

func TestIdentityOfTheCluster(t *testing.T) {
	require.Equal(t, "prod", Config{Cluster: "prod"}.Identity(), "without an ID the name has to do")
	require.Equal(t, kubeSystemUID, Config{Cluster: "prod", ClusterID: kubeSystemUID}.Identity())
	for _, id := range []string{"", kubeSystemUID} {
		config := Config{Cluster: "prod", ClusterID: id}
		require.Equal(t, "k8s_prod_node-1", InitiatorName(config.Cluster, "node-1"), "names that were given stay, whatever the ID")
		volume, err := ParseVolume(`{"kubernetes.io/pvOrVolumeName":"pv-1","kubernetes.io/fsType":"xfs","size":"1"}`, config.Cluster)
		require.NoError(t, err)
		require.Equal(t, "k8s_prod_pv-1", volume.AppInstance, "another name would be a blank volume")
	}
}

func TestKeysOfTenantsAndClusters(t *testing.T) {
	tests := map[string]struct {
		content string
		says    string // "" when it is taken
	}{
		"a UID":                           {"cluster_id: " + kubeSystemUID, ""},
		"any ID":                          {"cluster_id: prod-1", ""},
		"an ID with a space":              {"cluster_id: a b", `cluster_id is "a b"`},
		"an ID that is too long":          {"cluster_id: " + strings.Repeat("a", 49), "1 to 48 letters, digits and '-'"},
		"exempt initiators and groups":    {"exempt: [iqn.2020-01.com.example:backup, backup-hosts]", ""},
		"an exempt IQN in capitals":       {"exempt: ['iqn.2020-01.com.example:Backup']", `exempt is "iqn.2020-01.com.example:Backup"`},
		"an exempt group of this driver":  {"exempt: [k8s_kubernetes_pv-1]", `exempt is "k8s_kubernetes_pv-1"`},
		"an exempt list of readers":       {"exempt: [k8s-ro_kubernetes_pv-1]", `exempt is "k8s-ro_kubernetes_pv-1"`},
		"an exempt name that none can be": {"exempt: ['a/b']", `exempt is "a/b"`},
		"an exempt nothing":               {"exempt: ['']", `exempt is ""`},
		"exempt that is no list":          {"exempt: backup", "exempt: accepted is a list of texts"},
		"tenants":                         {"tenants: [/root, shop, /root/shop/blue]", ""},
		"no tenants":                      {"tenants: []", ""},
		"a tenant that none can be":       {"tenants: [/root/a b]", `tenants is "/root/a b"`},
		"an empty tenant":                 {"tenants: ['']", `tenants is ""`},
		"a misspelt key":                  {"clusterid: x", "did you mean cluster_id?"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := LoadConfig([]string{writeConfig(t, test.content, 0o600)}, noEnvironment)
			if test.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.says)
		})
	}
}

// The installer writes the configuration for the nodes: "no tenants beside" must not become "any tenant".
func TestNoTenantsBesideSurvivesTheInstaller(t *testing.T) {
	for content, tenants := range map[string][]string{"tenants: []": {}, "mgmt_ip: a": nil, "tenants: [shop]": {"shop"}} {
		config, err := LoadConfig([]string{writeConfig(t, content, 0o600)}, noEnvironment)
		require.NoError(t, err)
		document, err := yaml.Marshal(config)
		require.NoError(t, err)
		again, err := LoadConfig([]string{writeConfig(t, string(document), 0o600)}, noEnvironment)
		require.NoError(t, err)
		require.Equal(t, tenants, again.Tenants)
	}
}

// lister is an array that lists its tenants, or refuses to.
type lister struct {
	tenants []string
	err     error
	asked   int
}

func (l *lister) Server() string { return "https://array.example.com:7718" }
func (l *lister) Tenants(context.Context) ([]string, error) {
	l.asked++
	return l.tenants, l.err
}

func TestTenantsOfTheClustersVolumes(t *testing.T) {
	forbidden := &datera.APIError{Status: 403, Name: "PermissionDeniedError", Message: "not yours"}
	tests := map[string]struct {
		config Config
		array  lister
		want   []string
		asked  int
		fails  []string
	}{
		"all of the array's, the configured one first": {
			Config{Tenant: "/root/shop"}, lister{tenants: []string{"/root", "/root/blue", "/root/shop"}},
			[]string{"/root/shop", "/root", "/root/blue"}, 1, nil,
		},
		"a short form of the configured one": {
			Config{Tenant: "shop"}, lister{tenants: []string{"/root", "/root/shop"}}, []string{"/root/shop", "/root"}, 1, nil,
		},
		"the configured ones, for a user who may list none": {
			Config{Tenant: "/root/shop", Tenants: []string{"blue", "/root", "/root/shop"}}, lister{err: forbidden},
			[]string{"/root/shop", "/root/blue", "/root"}, 0, nil,
		},
		"none beside": {Config{Tenant: "/root/shop", Tenants: []string{}}, lister{err: forbidden}, []string{"/root/shop"}, 0, nil},
		"a user who may list none, and no setting": {
			Config{Tenant: "/root/shop", Path: "/etc/datera/datera-config"}, lister{err: forbidden}, nil, 1,
			[]string{"list the tenants of https://array.example.com:7718", "not yours", "`tenants` in /etc/datera/datera-config", "[]"},
		},
		"an array that is away": {Config{}, lister{err: errors.New("nothing listens there")}, nil, 1, []string{"nothing listens there"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tenants, err := test.config.SearchTenants(t.Context(), &test.array)
			require.Equal(t, test.asked, test.array.asked)
			if test.fails == nil {
				require.NoError(t, err)
				require.Equal(t, test.want, tenants)
				return
			}
			for _, words := range test.fails {
				require.ErrorContains(t, err, words)
			}
			require.Equal(t, strings.Contains(test.fails[0], "nothing listens"), !strings.Contains(err.Error(), "`tenants`"),
				"the setting helps who may not list, not where the array is away")
		})
	}
}
