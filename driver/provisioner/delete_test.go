package provisioner

import (
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
)

const initiator = "iqn.1993-08.org.debian:01:node-1"

func TestDeleteOnlyWhatWasMade(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world, pv *v1.PersistentVolume)
		says   string
	}{
		"by another provisioner": {func(_ *world, pv *v1.PersistentVolume) { pv.Annotations[annotationProvisionedBy] = "other" }, `is "other"`},
		"of another driver":      {func(_ *world, pv *v1.PersistentVolume) { pv.Spec.FlexVolume.Driver = "other/driver" }, "was not made by"},
		"no FlexVolume":          {func(_ *world, pv *v1.PersistentVolume) { pv.Spec.FlexVolume = nil }, "was not made by"},
		"somebody else's volume": {func(w *world, pv *v1.PersistentVolume) {
			_, err := w.array.CreateAppInstance("important", 10)
			require.NoError(w.t, err)
			pv.Spec.FlexVolume.Options[optVolumeID] = "important"
		}, `was not made for this PersistentVolume: its description is ""`},
		"another PersistentVolume's": {func(w *world, pv *v1.PersistentVolume) {
			pv.Spec.FlexVolume.Options[optVolumeID] = w.made(aClaim("other", "10Gi")).Spec.FlexVolume.Options[optVolumeID]
		}, "was not made for this PersistentVolume"},
		"of another cluster": {func(w *world, _ *v1.PersistentVolume) { w.config.Cluster = "other" }, "was not made for this PersistentVolume"},
		"attached": {func(w *world, pv *v1.PersistentVolume) {
			require.NoError(w.t, w.array.RegisterInitiator(initiator, "node-1"))
			w.wasAttached(pv, initiator)
		}, "is in use by " + initiator},
		"with a session": {func(w *world, pv *v1.PersistentVolume) {
			require.NoError(w.t, w.array.SetActiveInitiators(pv.Spec.FlexVolume.Options[optVolumeID], initiator))
		}, "is in use by " + initiator},
		"an option that nobody knows": {func(_ *world, pv *v1.PersistentVolume) { pv.Spec.FlexVolume.Options["x"] = "y" }, `unknown option "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, aClass(nil))
			pv := w.made(aClaim(theClaim, "10Gi"))
			test.change(w, pv)
			volumes := w.array.AppInstances(root)
			require.ErrorContains(t, w.provisioner().Delete(t.Context(), pv), test.says)
			require.Equal(t, volumes, w.array.AppInstances(root))
		})
	}
}

// A volume that is not found where the configuration leads by now is not gone.
func TestDeleteAfterTheConfigurationChanged(t *testing.T) {
	w := newWorld(t, aClass(nil))
	pv := w.made(aClaim(theClaim, "10Gi"))
	_, err := w.array.Do(root, "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	w.config.Tenant = "/root/dev"
	require.ErrorContains(t, w.provisioner().Delete(t.Context(), pv), "belongs on "+w.config.ManagementIP+"/root; the configuration leads to "+w.config.ManagementIP+"/root/dev now")
	w.config.Tenant = root
	require.NoError(t, w.provisioner().Delete(t.Context(), pv))
	require.Empty(t, w.array.AppInstances(root))
}

// A volume that was in use is deleted once it is free, and a second time is no error.
func TestDeleteWhenFree(t *testing.T) {
	w := newWorld(t, aClass(nil))
	pv := w.made(aClaim(theClaim, "10Gi"))
	volume := pv.Spec.FlexVolume.Options[optVolumeID]
	require.NoError(t, w.array.SetActiveInitiators(volume, initiator))
	require.Error(t, w.provisioner().Delete(t.Context(), pv))
	require.NoError(t, w.array.SetActiveInitiators(volume))
	require.NoError(t, w.provisioner().Delete(t.Context(), pv))
	require.Empty(t, w.array.AppInstances(root))
	require.NoError(t, w.provisioner().Delete(t.Context(), pv))
}

func TestNotTwiceAtATime(t *testing.T) {
	w := newWorld(t, aClass(nil))
	pv := w.made(aClaim(theClaim, "10Gi"))
	p := w.provisioner()
	release, free := p.workOn(pv.Name)
	require.True(t, free)
	require.ErrorContains(t, p.Delete(t.Context(), pv), "is being worked on")
	_, _, err := p.Provision(t.Context(), w.options(*w.claim(theClaim)))
	require.ErrorContains(t, err, "is being worked on")
	require.NoError(t, p.FinishInterrupted(t.Context()))
	require.Len(t, w.journal(), 1, "the entry of what is worked on was touched")
	release()
	require.NoError(t, p.Delete(t.Context(), pv))
}
