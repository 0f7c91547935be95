package driver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

const (
	iqnB        = "iqn.1993-08.org.debian:01:node-b"
	iqnBackup   = "iqn.2020-01.com.example:backup"
	iqnOther    = "iqn.1993-08.org.debian:01:node-of-prod"
	iqnLost     = "iqn.1993-08.org.debian:01:lost"
	claimPrefix = "k8s_0123456789ab_ba9876543210_rw_"
)

// volumeOf is a volume with an ACL policy; entries that look like IQNs are initiators of their own.
func volumeOf(name, descr string, active []string, entries ...string) datera.AppInstance {
	instance := datera.StorageInstance{Path: "/app_instances/" + name + "/storage_instances/storage-1", AccessControlMode: denyAll, ActiveInitiators: active}
	for _, entry := range entries {
		if strings.HasPrefix(entry, "iqn.") {
			instance.ACL.Initiators = append(instance.ACL.Initiators, datera.Reference{Path: "/initiators/" + entry})
			continue
		}
		instance.ACL.InitiatorGroups = append(instance.ACL.InitiatorGroups, datera.Reference{Path: "/initiator_groups/" + entry})
	}
	return datera.AppInstance{Name: name, Descr: descr, StorageInstances: []datera.StorageInstance{instance}}
}

func TestDoctorNamesClaims(t *testing.T) {
	const made = "volume pv-1 of Kubernetes cluster kubernetes"
	none := []string{}
	long := "pvc-e922e87f-1259-4ee1-a471-91c55f4628ec"
	many := make([]datera.AppInstance, 0, 14)
	for i := range cap(many) {
		many = append(many, volumeOf(fmt.Sprintf("kube-pv-%02d", i), "", none, claimPrefix+"pv-1"))
	}
	withPolicy := func(ai datera.AppInstance, mode string) datera.AppInstance {
		ai.StorageInstances[0].AccessControlMode = mode
		return ai
	}
	tests := map[string]struct {
		volumes []datera.AppInstance
		groups  map[string][]string
		change  func(*Config)
		want    []string // the beginning of each message
		todo    string
	}{
		"a node that uses its volume": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, []string{ownIQN}, claimPrefix+"pv-1")},
			map[string][]string{claimPrefix + "pv-1": {ownIQN}}, nil, nil, "",
		},
		"an initiator of its own": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, none, iqnBackup)}, nil, nil,
			[]string{"initiator " + iqnBackup + " (backup-host) is in the ACL policy of volume k8s_kubernetes_pv-1: it counts as a claim"}, "name it under exempt",
		},
		"an initiator of its own, with a session": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, []string{iqnBackup}, iqnBackup)}, nil, nil,
			[]string{"initiator " + iqnBackup}, "",
		},
		"one that is exempt": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, none, iqnBackup, "backup", "half-backup")},
			map[string][]string{"backup": {iqnLost}, "half-backup": {iqnBackup}},
			func(c *Config) { c.Exempt = []string{iqnBackup, "backup"} }, nil, "",
		},
		"a group of other software, on many volumes": {
			[]datera.AppInstance{
				volumeOf("k8s_kubernetes_a", "", none, "csi"), volumeOf("k8s_kubernetes_b", "", none, "csi"), volumeOf("k8s_kubernetes_c", "", none, "csi"),
				volumeOf("k8s_kubernetes_d", "", none, "csi"), volumeOf("k8s_kubernetes_e", "", none, "csi", "empty"),
			},
			map[string][]string{"csi": {iqnB, iqnLost}, "empty": {}}, nil,
			[]string{"initiator group csi with " + iqnB + " and " + iqnLost + " is in the ACL policy of volume k8s_kubernetes_a, k8s_kubernetes_b, k8s_kubernetes_c and 2 more"}, "take it out",
		},
		"a volume of other software": {
			[]datera.AppInstance{volumeOf("cinder-1", "volume of OpenStack", none, iqnBackup, "csi")}, map[string][]string{"csi": {iqnLost}}, nil, nil, "",
		},
		"a volume that a node of this cluster has, whoever made it": {
			[]datera.AppInstance{volumeOf("kube-pv-1", "", []string{ownIQN}, claimPrefix+"pv-1", iqnBackup)}, map[string][]string{claimPrefix + "pv-1": {ownIQN}}, nil,
			[]string{"initiator " + iqnBackup}, "",
		},
		"a volume with a group of a former version": {
			[]datera.AppInstance{volumeOf("kube-pv-1", "", []string{ownIQN}, "k8s_kubernetes_pv-1", iqnBackup)}, map[string][]string{"k8s_kubernetes_pv-1": {ownIQN}}, nil,
			[]string{"initiator " + iqnBackup}, "",
		},
		"a volume that was made for this cluster, by its identity": {
			[]datera.AppInstance{volumeOf("kube-pv-1", made+" ("+kubeSystemUID+")", none, iqnBackup)}, nil, nil, []string{"initiator " + iqnBackup}, "",
		},
		"a volume of another cluster of this name": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made+" (another)", none, iqnBackup)}, nil, nil, nil, "",
		},
		"a volume of a cluster whose name begins like this one's": {
			[]datera.AppInstance{volumeOf("kube-pv-1", made+"-2", none, iqnBackup)}, nil, nil, nil, "",
		},
		"a volume of another cluster": {
			[]datera.AppInstance{volumeOf("k8s_prod_pv-1", "volume pv-1 of Kubernetes cluster prod", none, claimPrefix+"pv-1", iqnBackup)},
			map[string][]string{claimPrefix + "pv-1": {iqnOther}}, nil, nil, "",
		},
		"a claim without a session": {
			[]datera.AppInstance{volumeOf("kube-pv-1", "", none, claimPrefix+"pv-1")}, map[string][]string{claimPrefix + "pv-1": {iqnB}}, nil,
			[]string{"node node-b (" + iqnB + ") may reach volume kube-pv-1 and has no session"}, "`iscsi detach pv-1 node-b`",
		},
		"a claim without a session, of a former version": {
			[]datera.AppInstance{volumeOf("kube-pv-1", "", none, "k8s_kubernetes_pv-1")}, map[string][]string{"k8s_kubernetes_pv-1": {iqnB}}, nil,
			[]string{"node node-b"}, "`iscsi detach pv-1 node-b`",
		},
		"a claim under a name that was cut": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_"+long, "volume "+long+" of Kubernetes cluster kubernetes", none, (claimPrefix + long)[:64])},
			map[string][]string{(claimPrefix + long)[:64]: {iqnB}}, nil, []string{"node node-b"}, "`iscsi detach " + long + " node-b`",
		},
		"a claim of a node that is registered no more": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, none, claimPrefix+"pv-1")}, map[string][]string{claimPrefix + "pv-1": {iqnLost}}, nil,
			[]string{iqnLost + " (registered under no name) may reach volume k8s_kubernetes_pv-1 and has no session"}, "from initiator group " + claimPrefix + "pv-1",
		},
		"a claim of a node of another cluster": {
			[]datera.AppInstance{volumeOf("k8s_kubernetes_pv-1", made, none, claimPrefix+"pv-1")}, map[string][]string{claimPrefix + "pv-1": {iqnOther}}, nil, nil, "",
		},
		"an array that does not tell of sessions": {
			[]datera.AppInstance{volumeOf("kube-pv-1", "", nil, claimPrefix+"pv-1")}, map[string][]string{claimPrefix + "pv-1": {iqnB}}, nil, nil, "",
		},
		"more claims than a person reads": {
			many, map[string][]string{claimPrefix + "pv-1": {iqnB}}, nil, append(
				strings.Split(strings.Repeat("node node-b,", 10), ",")[:10], "4 more claims have no session"), "",
		},
		"a volume that lets everybody in": {
			[]datera.AppInstance{withPolicy(volumeOf("k8s_kubernetes_pv-1", made, none), allowAll)}, nil, nil,
			[]string{"every initiator may reach volume k8s_kubernetes_pv-1"}, denyAll,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, p := wellDesk(t)
			p.byIQN = map[string]string{ownIQN: "k8s_kubernetes_node-a", iqnB: "k8s_kubernetes_node-b", iqnBackup: "backup-host", iqnOther: "k8s_prod_node-b"}
			p.volumes, p.groups = test.volumes, test.groups
			if test.change != nil {
				test.change(&d.Config)
			}
			found := d.findings(t)
			require.Len(t, found, len(test.want), "%v", found)
			for i, want := range test.want {
				require.Equal(t, "claims", found[i].Check)
				require.True(t, strings.HasPrefix(found[i].Message, want), "%q does not begin with %q", found[i].Message, want)
				require.Contains(t, found[i].Remedy, test.todo)
			}
		})
	}
}

// The way through client and array: volumes of all tenants in which the cluster has some.
func TestDoctorLooksIntoEveryTenant(t *testing.T) {
	server := array(t)
	require.NoError(t, server.RegisterInitiator(ownIQN, "k8s_kubernetes_node-a"))
	require.NoError(t, server.RegisterInitiator(iqnBackup, "backup-host"))
	do := func(tenant, method, path string, body map[string]any) {
		_, err := server.Do(tenant, method, path, body)
		require.NoError(t, err)
	}
	do("/root", http.MethodPost, "/tenants", map[string]any{"name": "shop"})
	for _, tenant := range []string{"/root", "/root/shop"} {
		name := "k8s_kubernetes_" + strings.ReplaceAll(tenant[1:], "/", "-")
		do(tenant, http.MethodPost, "/app_instances", map[string]any{"name": name, "storage_instances": []any{
			map[string]any{"name": "storage-1", "access_control_mode": denyAll, "volumes": []any{map[string]any{"name": "volume-1", "size": 1}}}}})
		do(tenant, http.MethodPut, "/app_instances/"+name+"/storage_instances/storage-1/acl_policy",
			map[string]any{"initiators": []any{map[string]any{"path": "/initiators/" + iqnBackup}}})
	}
	tests := map[string]struct {
		change  func(*desk)
		message string // "" when all is well
		level   Level
	}{
		"all that the array lists": {func(*desk) {}, "of volume k8s_kubernetes_root, k8s_kubernetes_root-shop", LevelWarning},
		"those that are configured": {func(d *desk) {
			d.Config.Tenants = []string{}
		}, "of volume k8s_kubernetes_root: ", LevelWarning},
		"with an exemption": {func(d *desk) { d.Config.Exempt = []string{iqnBackup} }, "", LevelOK},
		"a user who may not list tenants": {func(d *desk) {
			d.secretive()
		}, "name the tenants beside /root in which this cluster has volumes under `tenants`", LevelProblem},
		"a user who may not list tenants, and need not": {func(d *desk) {
			d.secretive()
			d.Config.Tenants, d.Config.Exempt = []string{"shop"}, []string{iqnBackup}
		}, "", LevelOK},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, _ := wellDesk(t)
			d.onArray(t, server)
			test.change(d)
			found := d.findings(t)
			if test.message == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1, "%v", found)
			require.Equal(t, test.level, found[0].Level)
			require.Contains(t, found[0].Message, test.message)
		})
	}
}

// secretiveProbe is an array whose user may not list tenants.
type secretiveProbe struct{ ArrayProbe }

func (secretiveProbe) Tenants(context.Context) ([]string, error) {
	return nil, &datera.APIError{Status: http.StatusForbidden, Name: "PermissionDeniedError"}
}

func (d *desk) secretive() {
	open := d.OpenProbe
	d.OpenProbe = func(scheme string, credentials Credentials, tenant string) (ArrayProbe, error) {
		probe, err := open(scheme, credentials, tenant)
		return secretiveProbe{probe}, err
	}
}

func TestDoctorTellsWhichClusterThisIs(t *testing.T) {
	tests := map[string]struct {
		change func(*desk)
		level  Level
		says   string
		todo   string
	}{
		"by its UID":            {func(*desk) {}, LevelOK, "kubernetes, identity " + kubeSystemUID, ""},
		"by its name alone":     {func(d *desk) { d.Config.ClusterID = "" }, LevelWarning, `by its name "kubernetes" alone`, "kubectl get namespace kube-system"},
		"by its name, as an ID": {func(d *desk) { d.Config.ClusterID = "kubernetes" }, LevelWarning, `by its name "kubernetes" alone`, "a `cluster` of its own"},
		"by another UID than it has": {func(d *desk) {
			d.AskCluster = func(context.Context) (string, error) { return "another", nil }
		}, LevelWarning, "in force is " + kubeSystemUID + ", and the namespace kube-system has the UID another", "while no volume is attached"},
		"by the UID that it has": {func(d *desk) {
			d.AskCluster = func(context.Context) (string, error) { return kubeSystemUID, nil }
		}, LevelOK, kubeSystemUID, ""},
		"where it cannot be asked": {func(d *desk) {
			d.AskCluster = func(context.Context) (string, error) { return "", errInjected }
		}, LevelOK, kubeSystemUID, ""},
		"with this node exempt": {func(d *desk) { d.Config.Exempt = []string{ownIQN} }, LevelProblem, "keeps no other node out", "take it out of exempt"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, _ := wellDesk(t)
			test.change(d)
			for _, finding := range d.Doctor(t.Context()) {
				if finding.Check == "cluster" {
					require.Equal(t, test.level, finding.Level)
					require.Contains(t, finding.Message, test.says)
					require.Contains(t, finding.Remedy, test.todo)
					return
				}
			}
			t.Fatal("nothing is said of the cluster")
		})
	}
}
