package provisioner

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"

	"datera-flexvolume/driver"
)

// Kubernetes writes the new size into the PersistentVolume; the volume on the array follows.
func TestRunGrows(t *testing.T) {
	w := newWorld(t, aClass(nil))
	w.start()
	w.create(aClaim(theClaim, "1Gi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	name := nameOf(*w.claim(theClaim))
	w.setCapacity(name, "5Gi")
	w.await("growth on the array", func() bool { return w.sizeGiB(name) == 5 })

	w.setCapacity(name, "300Ti")
	w.await("the reason", func() bool { return strings.Contains(w.eventsOn(theClaim), "Warning VolumeResizeFailed") })
}

// The API server's two lists do not come at one time.
func TestGrowthIsSeenBeforeItsClaimIsBound(t *testing.T) {
	w := newWorld(t, aClass(nil))
	r := w.start()
	w.create(aClaim(theClaim, "1Gi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	r.end()
	inPhase := func(phase v1.PersistentVolumeClaimPhase) {
		w.changeClaim(theClaim, func(claim *v1.PersistentVolumeClaim) { claim.Status.Phase = phase })
	}
	inPhase(v1.ClaimPending)
	name := nameOf(*w.claim(theClaim))
	w.setCapacity(name, "5Gi")

	ctx, cancel := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactory(w.kube, 0)
	g := newGrower(w.provisioner(), factory, Settings{}.patience())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	require.True(t, g.next(ctx), "the volume that has grown was not looked at")
	var running sync.WaitGroup
	running.Go(func() { g.run(ctx, 1) })
	defer running.Wait()
	defer cancel()
	w.await("growth on the array", func() bool {
		inPhase(v1.ClaimBound) // more than once: a fake API server may not watch yet
		return w.sizeGiB(name) == 5
	})
}

// sizeGiB is the size that the array says.
func (w *world) sizeGiB(name string) int {
	ai, found := w.array.AppInstance(root, "k8s_kubernetes_"+name)
	require.True(w.t, found, "volume %s is not on the array", name)
	return ai.SizeGiB
}

func (w *world) setCapacity(name, size string) {
	w.changePV(name, func(pv *v1.PersistentVolume) {
		pv.Spec.Capacity = v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}
	})
}

func TestOutgrown(t *testing.T) {
	size := func(size string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}
	}
	for name, test := range map[string]struct {
		pv, claim string
		change    func(pv *v1.PersistentVolume, claim *v1.PersistentVolumeClaim)
		outgrown  bool
	}{
		"larger":          {"2Gi", "1Gi", nil, true},
		"as large":        {"1Gi", "1Gi", nil, false},
		"not bound yet":   {"2Gi", "1Gi", func(_ *v1.PersistentVolume, c *v1.PersistentVolumeClaim) { c.Status.Phase = v1.ClaimPending }, false},
		"another claim":   {"2Gi", "1Gi", func(_ *v1.PersistentVolume, c *v1.PersistentVolumeClaim) { c.UID = "x" }, false},
		"no claim":        {"2Gi", "1Gi", func(pv *v1.PersistentVolume, _ *v1.PersistentVolumeClaim) { pv.Spec.ClaimRef = nil }, false},
		"claim that went": {"2Gi", "1Gi", func(pv *v1.PersistentVolume, _ *v1.PersistentVolumeClaim) { pv.Spec.ClaimRef.Name = "x" }, false},
		"another's":       {"2Gi", "1Gi", func(pv *v1.PersistentVolume, _ *v1.PersistentVolumeClaim) { pv.Annotations = nil }, false},
		"it went":         {"2Gi", "1Gi", func(pv *v1.PersistentVolume, _ *v1.PersistentVolumeClaim) { pv.Name = "x" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, claim := newWorld(t), aClaim(theClaim, "1Gi")
			claim.Status = v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size(test.claim)}
			pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", Annotations: map[string]string{annotationProvisionedBy: Name}}}
			pv.Spec.FlexVolume = &v1.FlexPersistentVolumeSource{Driver: driver.DriverName}
			pv.Spec.Capacity = size(test.pv)
			pv.Spec.ClaimRef = &v1.ObjectReference{Namespace: theNamespace, Name: theClaim, UID: claim.UID}
			if test.change != nil {
				test.change(pv, claim)
			}
			factory := informers.NewSharedInformerFactory(w.kube, 0)
			g := newGrower(w.provisioner(), factory, Settings{}.patience())
			require.NoError(t, g.volumes.GetStore().Add(pv))
			require.NoError(t, g.claims.GetStore().Add(claim))
			got, _ := g.outgrown("pv")
			require.Equal(t, test.outgrown, got != nil)
		})
	}
}
