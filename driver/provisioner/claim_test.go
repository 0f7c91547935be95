package provisioner

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubetesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"datera-flexvolume/driver"
)

var update = flag.Bool("update", false, "write the golden files")

// The PersistentVolume that the nodes will get, to the letter.
func TestPersistentVolume(t *testing.T) {
	everything := map[string]string{
		"fsType": "ext4", "replica": "2", "maxIops": "5000", "maxBW": "102400", "ipPool": "default", "placementMode": "all_flash",
		"placementPolicy": "default", "tenant": "/root/dev", "mountOptions": "noatime", "mkfsOptions": "-m 0", "retainPolicy": "never",
		"secretName": "array", "secretNamespace": "storage",
	}
	mountOptions := func(class *storageClass) { class.MountOptions = []string{"nodev", "nosuid"} }
	for name, test := range map[string]struct {
		class *storageClass
		claim *v1.PersistentVolumeClaim
	}{
		"plain":      {aClass(nil, retain), aClaim(theClaim, "1500Mi")},
		"everything": {aClass(everything, mountOptions), aClaim(theClaim, "100Gi", modes(v1.ReadWriteOnce, v1.ReadOnlyMany))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.class, aSecret("tlx170.tlx.daterainc.com:7717"))
			test.claim.UID = types.UID("2071cca0-5c0e-4b4a-9c5f-3d1a3c8e7f10")
			pv, err := w.provisioner().design(t.Context(), w.driver(), w.options(*test.claim))
			require.NoError(t, err)
			got, err := yaml.Marshal(pv)
			require.NoError(t, err)
			got = bytes.ReplaceAll(got, []byte(w.config.ManagementIP), []byte("tlx170.tlx.daterainc.com:7717"))
			golden := filepath.Join("testdata", "pv-"+name+".yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "%s; run with -update if it is meant", golden)
		})
	}
}

func TestProvision(t *testing.T) {
	w := newWorld(t, aClass(map[string]string{"replica": "2", "maxIops": "5000", "maxBW": "1024", "placementMode": "all_flash", "ipPool": "default"}))
	pv := w.made(aClaim(theClaim, "1500Mi"))
	require.Equal(t, "k8s_kubernetes_"+pv.Name, pv.Spec.FlexVolume.Options[optVolumeID])
	capacity := pv.Spec.Capacity[v1.ResourceStorage]
	require.Equal(t, "2Gi", capacity.String())
	require.Equal(t, []string{"Normal VolumeSize asked for 1500Mi, the volume has 2Gi: the array counts in GiB"}, w.said())

	ai, found := w.array.AppInstance(root, pv.Spec.FlexVolume.Options[optVolumeID])
	require.True(t, found)
	require.Equal(t, []any{2, 2, 5000, 1024, "all_flash", "/access_network_ip_pools/default", "deny_all", "online"},
		[]any{ai.SizeGiB, ai.Replicas, ai.TotalIOPS, ai.TotalBandwidth, ai.PlacementMode, ai.IPPool, ai.AccessControl, ai.AdminState})
}

func TestSizeIsSaidWhenItIsAnother(t *testing.T) {
	w := newWorld(t, aClass(nil))
	w.made(aClaim(theClaim, "10Gi"))
	require.Empty(t, w.said())
}

func TestSizes(t *testing.T) {
	for asked, gib := range map[string]int64{"1": 1, "1Gi": 1, "1073741825": 2, "10Gi": 10, "10G": 10, "8Ei": 8589934592} {
		quantity := resource.MustParse(asked)
		require.Equal(t, gib, driver.RoundUpGiB(quantity.Value()), asked)
	}
}

// What cannot be done is refused when the claim is made, before anything is, and says what can.
func TestRefusals(t *testing.T) {
	block := v1.PersistentVolumeBlock
	group, other := "snapshot.storage.k8s.io", "elsewhere"
	claim := func(change func(*v1.PersistentVolumeClaim)) *v1.PersistentVolumeClaim {
		return aClaim(theClaim, "10Gi", change)
	}
	spec := func(change func(*v1.PersistentVolumeClaimSpec)) *v1.PersistentVolumeClaim {
		return claim(func(claim *v1.PersistentVolumeClaim) { change(&claim.Spec) })
	}
	with := func(parameters ...string) *storageClass {
		all := map[string]string{}
		for i := 0; i < len(parameters); i += 2 {
			all[parameters[i]] = parameters[i+1]
		}
		return aClass(all)
	}
	const path = "/app_instances/x/storage_instances/storage-1/volumes/volume-1"
	for name, test := range map[string]struct {
		class *storageClass
		claim *v1.PersistentVolumeClaim
		says  []string
	}{
		"block":              {nil, spec(func(s *v1.PersistentVolumeClaimSpec) { s.VolumeMode = &block }), []string{"volumeMode Block", "use volumeMode Filesystem"}},
		"many writers":       {nil, claim(modes(v1.ReadWriteOnce, v1.ReadWriteMany)), []string{"ReadWriteMany", "one node at a time"}},
		"readers of nothing": {nil, claim(modes(v1.ReadOnlyMany)), []string{"ReadOnlyMany alone", "blank"}},
		"selector":           {nil, spec(func(s *v1.PersistentVolumeClaimSpec) { s.Selector = &metav1.LabelSelector{} }), []string{"selector"}},
		"attributes class":   {nil, spec(func(s *v1.PersistentVolumeClaimSpec) { s.VolumeAttributesClassName = &other }), []string{"volumeAttributesClassName elsewhere", "CSI"}},
		"limit": {nil, aClaim(theClaim, "1500Mi", func(c *v1.PersistentVolumeClaim) {
			c.Spec.Resources.Limits = v1.ResourceList{v1.ResourceStorage: resource.MustParse("1600Mi")}
		}), []string{"1500Mi becomes 2Gi", "limit of 1600Mi"}},
		"too large":       {nil, aClaim(theClaim, "1Pi"), []string{`option size is "1048576"`, "1 to 262144"}},
		"several at once": {with("maxIop", "1"), claim(modes(v1.ReadWriteMany)), []string{"ReadWriteMany", `unknown parameter "maxIop"`}},

		"misspelt":          {with("maxIop", "1", "replicas", "2"), nil, []string{"StorageClass datera: ", `"maxIop": did you mean maxIops?`, `"replicas": did you mean replica?`}},
		"size":              {with("size", "10"), nil, []string{"size is no parameter", "spec.resources.requests.storage"}},
		"volumeID":          {with("volumeID", "x"), nil, []string{"volumeID is no parameter"}},
		"CSI's fstype":      {with("csi.storage.k8s.io/fstype", "xfs"), nil, []string{"here it is fsType"}},
		"bad value":         {with("replica", "9", "placementMode", "fast", "fsType", "btrfs"), nil, []string{`option replica is "9"`, `placementMode is "fast"`, "accepted is xfs or ext4"}},
		"half a secret":     {with("secretName", "array"), nil, []string{"secretName and secretNamespace belong together"}},
		"no such secret":    {with("secretName", "nobody", "secretNamespace", "storage"), nil, []string{"read Secret storage/nobody", "not found"}},
		"retained, deleted": {with("retainPolicy", "retain"), nil, []string{`retainPolicy is "retain", but reclaimPolicy is Delete`}},
		"deleted, retained": {aClass(map[string]string{"retainPolicy": "never"}, retain), nil, []string{`retainPolicy is "never", but reclaimPolicy is Retain`}},
		"two layouts":       {with("template", "gold", "volumeSource", path), nil, []string{"template and volumeSource"}},
		"topology": {aClass(nil, func(class *storageClass) { class.AllowedTopologies = []v1.TopologySelectorTerm{{}} }), nil,
			[]string{"allowedTopologies", "every node"}},
		"another array":    {with("backstoreServer", "elsewhere:7717"), nil, []string{`option backstoreServer is "elsewhere:7717"`, "sent nowhere else"}},
		"no such template": {with("template", "gold"), nil, []string{`template "gold"`}},
		"no such tenant":   {with("tenant", "nobody"), nil, []string{"/root/nobody"}},

		"VolumeSnapshot": {nil, spec(func(s *v1.PersistentVolumeClaimSpec) {
			s.DataSource = &v1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: "snap"}
		}), []string{"VolumeSnapshots are CSI's", annotationSnapshot}},
		"populator": {nil, spec(func(s *v1.PersistentVolumeClaimSpec) {
			s.DataSourceRef = &v1.TypedObjectReference{APIGroup: &other, Kind: "Hello", Name: "world"}
		}), []string{"dataSource Hello world: accepted is a PersistentVolumeClaim"}},
		"other namespace": {nil, spec(func(s *v1.PersistentVolumeClaimSpec) {
			s.DataSourceRef = &v1.TypedObjectReference{Kind: kindClaim, Name: "source", Namespace: &other}
		}), []string{"dataSourceRef of namespace elsewhere", "within its namespace"}},
		"two sources": {with("volumeSource", path), claim(cloneOf("source")), []string{"one volume has one source"}},
		"snapshot of nothing": {nil, claim(func(c *v1.PersistentVolumeClaim) { c.Annotations = map[string]string{annotationSnapshot: "1.2"} }),
			[]string{annotationSnapshot + " needs a dataSource"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.class == nil {
				test.class = aClass(nil)
			}
			if test.claim == nil {
				test.claim = aClaim(theClaim, "10Gi")
			}
			w := newWorld(t, test.class, test.claim)
			err := w.run(&process{})
			require.Error(t, err)
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.NotContains(t, strings.TrimSpace(err.Error()), "\n", "an event has one line")
			require.Empty(t, w.array.AppInstances(root))
			require.Empty(t, w.pvs())
		})
	}
}

func TestTemplate(t *testing.T) {
	w := newWorld(t, aClass(map[string]string{"template": "gold"}))
	_, err := w.array.Do(root, "POST", "/app_templates", map[string]any{"name": "gold", "storage_templates": []any{
		map[string]any{"name": "storage-1", "volume_templates": []any{map[string]any{"name": "volume-1", "size": 5, "replica_count": 1}}}}})
	require.NoError(t, err)
	pv := w.made(aClaim(theClaim, "20Gi"))
	ai, _ := w.array.AppInstance(root, pv.Spec.FlexVolume.Options[optVolumeID])
	require.Equal(t, 20, ai.SizeGiB, "the claim's size wins over the template's")
	require.Equal(t, 1, ai.Replicas)
}

func TestSecretsThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world, secret *v1.Secret)
		says   string
	}{
		"of another type": {func(_ *world, secret *v1.Secret) { secret.Type = v1.SecretTypeOpaque }, `has type "Opaque"`},
		"no password":     {func(_ *world, secret *v1.Secret) { delete(secret.Data, "password") }, "has no username or no password"},
		"no server":       {func(_ *world, secret *v1.Secret) { delete(secret.Data, "server") }, "names no server"},
		"not allowed": {func(w *world, _ *v1.Secret) {
			w.kube.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(v1.Resource("secrets"), "array", errors.New("RBAC"))
			})
		}, "allow it with a Role and a RoleBinding in namespace storage"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, aClass(map[string]string{paramSecretName: "array", paramSecretNamespace: "storage"}))
			secret := aSecret(w.config.ManagementIP)
			secret.Data["password"] = []byte("canary")
			test.change(w, secret)
			w.add(secret)
			w.add(aClaim(theClaim, "10Gi"))
			err := w.run(&process{})
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "canary")
			require.Empty(t, w.array.AppInstances(root))
		})
	}
}
