package provisioner

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/driver"
)

// A provisioner that ends at any of its calls leaves nothing that the next one does not
// finish: never two volumes for a claim, and none without a PersistentVolume.

// A setting is a claim and what was there before it.
type setting func(t *testing.T) (*world, *v1.PersistentVolumeClaim)

// aLargerClone takes the most calls: it is grown and limited after it was made, and the
// credentials are in a Secret.
func aLargerClone(t *testing.T) (*world, *v1.PersistentVolumeClaim) {
	secret := map[string]string{paramSecretName: "array", paramSecretNamespace: "storage"}
	limited := maps.Clone(secret)
	limited["maxIops"] = "500"
	w := newWorld(t, aClass(secret), aClass(limited, named("limited")))
	w.add(aSecret(w.config.ManagementIP))
	w.config.Username = "" // nothing can be reached with the configuration
	w.made(aClaim(source, "5Gi"))
	return w, aClaim(theClaim, "10Gi", cloneOf(source), ofClass("limited"))
}

func aSecret(server string) *v1.Secret {
	return &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "storage", Name: "array"}, Type: driver.DriverName,
		Data: map[string][]byte{"username": []byte("admin"), "password": []byte("password"), "server": []byte(server)},
	}
}

// walk runs a life for every call at which the first process can end, before and after the
// call is carried out.
func walk(t *testing.T, set setting, life func(t *testing.T, w *world, claim *v1.PersistentVolumeClaim, first *process)) {
	for n, ended := 1, true; ended; n++ {
		for _, carriedOut := range []bool{false, true} {
			first := &process{endAt: n, carriedOut: carriedOut}
			t.Run(fmt.Sprintf("at call %d, carried out %t", n, carriedOut), func(t *testing.T) {
				w, claim := set(t)
				life(t, w, claim, first)
			})
			ended = first.ended && !t.Failed()
		}
	}
}

func TestEndedWhileProvisioning(t *testing.T) {
	walk(t, aLargerClone, func(t *testing.T, w *world, claim *v1.PersistentVolumeClaim, first *process) {
		w.add(claim)
		before := len(w.array.AppInstances(root))
		err := w.run(first)
		require.Equal(t, first.ended, err != nil, "%v", err)

		require.NoError(t, w.run(&process{}), "after the end at %s", first.last())
		pv := w.pv(nameOf(*claim))
		require.NotNil(t, pv, "no PersistentVolume after the end at %s", first.last())
		require.Len(t, w.array.AppInstances(root), before+1, "volumes after the end at %s", first.last())
		ai, found := w.array.AppInstance(root, pv.Spec.FlexVolume.Options[optVolumeID])
		require.True(t, found)
		require.Equal(t, 10, ai.SizeGiB)
		capacity := pv.Spec.Capacity[v1.ResourceStorage]
		require.Equal(t, "10Gi", capacity.String())
		require.Equal(t, 500, ai.TotalIOPS, "the limits after the end at %s", first.last())
		require.Equal(t, pv.Name, w.claim(theClaim).Spec.VolumeName)

		w.deleteClaim(theClaim)
		w.settle()
		require.NoError(t, w.run(&process{}))
		w.isClean(before)
	})
}

func TestEndedWhileProvisioningAndTheClaimGoes(t *testing.T) {
	walk(t, aLargerClone, func(t *testing.T, w *world, claim *v1.PersistentVolumeClaim, first *process) {
		w.add(claim)
		before := len(w.array.AppInstances(root))
		_ = w.run(first)
		w.deleteClaim(theClaim)
		w.settle()
		require.NoError(t, w.run(&process{}), "after the end at %s", first.last())
		w.isClean(before)
	})
}

func TestEndedWhileDeleting(t *testing.T) {
	walk(t, aLargerClone, func(t *testing.T, w *world, claim *v1.PersistentVolumeClaim, first *process) {
		before := len(w.array.AppInstances(root))
		pv := w.made(claim)
		w.wasAttached(pv)
		w.deleteClaim(theClaim)
		w.settle()
		err := w.run(first)
		require.Equal(t, first.ended, err != nil, "%v", err)
		require.NoError(t, w.run(&process{}), "after the end at %s", first.last())
		w.isClean(before)
	})
}

// With Retain nothing is deleted, ever; what is on the array has a PersistentVolume.
func TestEndedWhileProvisioningWithRetain(t *testing.T) {
	set := func(t *testing.T) (*world, *v1.PersistentVolumeClaim) {
		return newWorld(t, aClass(nil, retain)), aClaim(theClaim, "10Gi")
	}
	walk(t, set, func(t *testing.T, w *world, claim *v1.PersistentVolumeClaim, first *process) {
		w.add(claim)
		_ = w.run(first)
		w.deleteClaim(theClaim)
		w.settle()
		require.NoError(t, w.run(&process{}), "after the end at %s", first.last())
		require.Len(t, w.pvs(), len(w.array.AppInstances(root)), "after the end at %s", first.last())
		for _, pv := range w.pvs() {
			require.Equal(t, v1.VolumeReleased, pv.Status.Phase)
		}
	})
}

func retain(class *storageClass) {
	policy := v1.PersistentVolumeReclaimRetain
	class.ReclaimPolicy = &policy
}

// wasAttached leaves on the array what attach and detach leave, with members what an attach alone leaves.
func (w *world) wasAttached(pv *v1.PersistentVolume, members ...string) {
	w.t.Helper()
	ai, found := w.array.AppInstance(root, "k8s_kubernetes_"+pv.Name)
	require.True(w.t, found)
	group := w.groupOf(ai.ID)
	paths := []any{}
	for _, iqn := range members {
		paths = append(paths, map[string]any{"path": "/initiators/" + iqn})
	}
	_, err := w.array.Do(root, http.MethodPost, "/initiator_groups", map[string]any{"name": group, "members": paths})
	require.NoError(w.t, err)
	_, err = w.array.Do(root, http.MethodPut, "/app_instances/"+ai.ID+"/storage_instances/storage-1/acl_policy/initiator_groups",
		map[string]any{"path": "/initiator_groups/" + group, "op": "add"})
	require.NoError(w.t, err)
	w.group = group
}

// groupOf is a name that the volume's group may have.
func (w *world) groupOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "k8s_0123456789ab_" + hex.EncodeToString(sum[:6]) + "_rw_pv"
}

// isClean looks for anything that is left, once the journal had its turn.
func (w *world) isClean(volumes int) {
	w.t.Helper()
	require.NoError(w.t, w.run(&process{}))
	require.Len(w.t, w.array.AppInstances(root), volumes, "volumes on the array")
	require.Len(w.t, w.pvs(), volumes, "PersistentVolumes")
	require.Empty(w.t, w.journal(), "the journal")
	members, _ := w.array.InitiatorGroup(root, w.group)
	require.Empty(w.t, members, "a claim")
}
