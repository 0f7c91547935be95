package provisioner

import (
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/driver"
)

const source = "source"

func TestCloneOfAClaim(t *testing.T) {
	w := newWorld(t, aClass(nil))
	from := w.made(aClaim(source, "10Gi"))
	pv := w.made(aClaim(theClaim, "5Gi", cloneOf(source), modes(v1.ReadOnlyMany)))
	original, _ := w.array.AppInstance(root, from.Spec.FlexVolume.Options[optVolumeID])
	ai, _ := w.array.AppInstance(root, pv.Spec.FlexVolume.Options[optVolumeID])
	require.Equal(t, pv.Spec.FlexVolume.Options[optSource], ai.CloneSrc)
	require.Contains(t, ai.CloneSrc, original.ID)
	require.True(t, pv.Spec.FlexVolume.ReadOnly)
	capacity := pv.Spec.Capacity[v1.ResourceStorage]
	require.Equal(t, "10Gi", capacity.String())
	require.Equal(t, "10", pv.Spec.FlexVolume.Options[optSize])
	require.Equal(t, []string{"Normal VolumeSize asked for 5Gi, the volume has 10Gi: the array counts in GiB, and a clone is not smaller than its source"}, w.said())
}

func TestCloneOfASnapshot(t *testing.T) {
	w := newWorld(t, aClass(nil))
	from := w.made(aClaim(source, "10Gi"))
	volume := "/app_instances/" + from.Spec.FlexVolume.Options[optVolumeID] + "/storage_instances/storage-1/volumes/volume-1"
	snapshot, err := w.array.Do(root, "POST", volume+"/snapshots", map[string]any{})
	require.NoError(t, err)
	stamp := snapshot["utc_ts"].(string)
	snap := func(stamp string) func(*v1.PersistentVolumeClaim) {
		return func(claim *v1.PersistentVolumeClaim) {
			claim.Annotations = map[string]string{annotationSnapshot: stamp}
		}
	}
	pv := w.made(aClaim(theClaim, "20Gi", cloneOf(source), snap(stamp)))
	ai, _ := w.array.AppInstance(root, pv.Spec.FlexVolume.Options[optVolumeID])
	require.Contains(t, ai.CloneSrc, "/snapshots/"+stamp)
	require.Equal(t, 20, ai.SizeGiB)

	// An administrator's class may name any path; who makes claims cannot.
	w.add(aClass(map[string]string{optSource: pv.Spec.FlexVolume.Options[optSource]}, named("golden")))
	golden := w.made(aClaim("golden", "10Gi", ofClass("golden")))
	ai, _ = w.array.AppInstance(root, golden.Spec.FlexVolume.Options[optVolumeID])
	require.Contains(t, ai.CloneSrc, "/snapshots/"+stamp)

	w.add(aClaim("climbing", "10Gi", cloneOf(source), snap("1.2/../../../../other")))
	require.ErrorContains(t, w.run(&process{}), "option volumeSource is")
}

func TestClonesThatCannotBe(t *testing.T) {
	bound := func(claim *v1.PersistentVolumeClaim) { claim.Spec.VolumeName, claim.Status.Phase = "pv", v1.ClaimBound }
	pv := func(change func(*v1.PersistentVolumeSpec)) *v1.PersistentVolume {
		pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
		pv.Spec.ClaimRef = &v1.ObjectReference{Namespace: theNamespace, Name: source}
		pv.Spec.FlexVolume = &v1.FlexPersistentVolumeSource{Driver: driver.DriverName, Options: map[string]string{"size": "10"}}
		change(&pv.Spec)
		return pv
	}
	for name, test := range map[string]struct {
		source *v1.PersistentVolumeClaim
		pv     *v1.PersistentVolume
		class  map[string]string
		says   string
	}{
		"of nothing":     {nil, nil, nil, "no such claim in namespace default"},
		"not bound":      {aClaim(source, "10Gi", ofClass("other")), nil, nil, "that claim is Pending"},
		"not ours":       {aClaim(source, "10Gi", bound), pv(func(s *v1.PersistentVolumeSpec) { s.FlexVolume.Driver = "x/y" }), nil, "is not of driver datera/iscsi"},
		"not flexVolume": {aClaim(source, "10Gi", bound), pv(func(s *v1.PersistentVolumeSpec) { s.FlexVolume = nil }), nil, "is not of driver datera/iscsi"},
		"other file system": {aClaim(source, "10Gi", bound), pv(func(s *v1.PersistentVolumeSpec) { s.FlexVolume.FSType = "ext4" }), nil,
			"holds ext4, but the StorageClass says fsType xfs"},
		"other tenant": {aClaim(source, "10Gi", bound), pv(func(s *v1.PersistentVolumeSpec) { s.FlexVolume.Options["tenant"] = "dev" }), nil,
			"is in tenant /root/dev"},
		"its secret is gone": {aClaim(source, "10Gi", bound), pv(func(s *v1.PersistentVolumeSpec) { s.FlexVolume.SecretRef = &v1.SecretReference{Name: "gone"} }), nil,
			"read Secret default/gone"},
		"not on the array": {aClaim(source, "10Gi", bound), pv(func(*v1.PersistentVolumeSpec) {}), nil, "look for volume k8s_kubernetes_pv, the source of the clone"},
		"a template":       {aClaim(source, "10Gi", bound), pv(func(*v1.PersistentVolumeSpec) {}), map[string]string{"template": "gold"}, "the StorageClass names template gold"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, aClass(test.class), aClass(nil, named("other"), func(class *storageClass) { class.Provisioner = "other" }))
			if test.source != nil {
				w.add(test.source)
			}
			if test.pv != nil {
				w.add(test.pv)
			}
			claim := aClaim(theClaim, "10Gi", cloneOf(source))
			w.add(claim)
			_, _, err := w.provisioner().Provision(t.Context(), w.options(*claim))
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "dataSource source")
			require.Empty(t, w.array.AppInstances(root))
		})
	}
}
