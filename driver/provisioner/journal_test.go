package provisioner

import (
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/datera/dateratest"
)

// interrupted is a world in which the volume of a claim was made and its PersistentVolume
// was not saved.
func interrupted(t *testing.T, class *storageClass) (*world, *v1.PersistentVolumeClaim) {
	t.Helper()
	w, claim := newWorld(t, class), aClaim(theClaim, "10Gi")
	w.add(claim)
	_, _, err := w.provisioner().Provision(t.Context(), w.options(*claim))
	require.NoError(t, err)
	require.Len(t, w.array.AppInstances(root), 1)
	require.Len(t, w.journal(), 1)
	return w, claim
}

// A class that is replaced between two attempts does not make a second volume elsewhere.
func TestClassIsReplacedBetweenAttempts(t *testing.T) {
	w, claim := interrupted(t, aClass(map[string]string{"replica": "2"}))
	w.replaceClass(aClass(map[string]string{"replica": "1", "tenant": "dev"}))
	_, err := w.array.Do(root, "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	require.NoError(t, w.run(&process{}))
	pv := w.pv(nameOf(*claim))
	require.Equal(t, "2", pv.Spec.FlexVolume.Options["replica"], "what was begun is finished")
	require.Empty(t, w.array.AppInstances("/root/dev"))
}

// Whoever makes a class anew because its data shall be kept, means what it had begun, too.
func TestReclaimPolicyIsTheOneOfNow(t *testing.T) {
	for name, mend := range map[string]func(*world, *v1.PersistentVolumeClaim){
		"claim stays": func(*world, *v1.PersistentVolumeClaim) {},
		"claim goes before the PersistentVolume is saved": func(w *world, claim *v1.PersistentVolumeClaim) {
			_, _, err := w.provisioner().Provision(w.t.Context(), w.options(*claim))
			require.NoError(w.t, err)
			w.deleteClaim(theClaim)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, claim := interrupted(t, aClass(nil))
			w.replaceClass(aClass(nil, retain))
			mend(w, claim)
			require.NoError(t, w.run(&process{}))
			require.Equal(t, v1.PersistentVolumeReclaimRetain, w.pv(nameOf(*claim)).Spec.PersistentVolumeReclaimPolicy)
		})
	}
}

// A claim that got another volume has no use for the one that was begun.
func TestClaimIsBoundToAnotherVolume(t *testing.T) {
	w, claim := interrupted(t, aClass(nil))
	bound := w.claim(theClaim)
	bound.Spec.VolumeName = "made-by-hand"
	_, err := w.kube.CoreV1().PersistentVolumeClaims(theNamespace).Update(t.Context(), bound, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, w.provisioner().FinishInterrupted(t.Context()))
	require.NotNil(t, w.pv(nameOf(*claim)), "the volume has no PersistentVolume")
	require.Empty(t, w.journal())
}

// The journal does not forget a volume because it looks in the wrong place.
func TestConfigurationChangesBetweenAttempts(t *testing.T) {
	w, claim := interrupted(t, aClass(nil))
	_, err := w.array.Do(root, "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	w.config.Tenant = "/root/dev"
	_, _, err = w.provisioner().Provision(t.Context(), w.options(*claim))
	require.ErrorContains(t, err, "belongs on")
	w.deleteClaim(theClaim)
	require.ErrorContains(t, w.provisioner().FinishInterrupted(t.Context()), "belongs on")
	require.Len(t, w.journal(), 1)
	w.config.Tenant = root
	require.NoError(t, w.run(&process{}))
	w.isClean(0)
}

// What a mistyped configuration leads to is not held on to.
func TestConfigurationIsMended(t *testing.T) {
	w, claim := newWorld(t, aClass(nil)), aClaim(theClaim, "10Gi")
	w.add(claim)
	w.config.Tenant = "/root/mistyped"
	_, _, err := w.provisioner().Provision(t.Context(), w.options(*claim))
	require.ErrorContains(t, err, "/root/mistyped")
	require.Empty(t, w.journal())
	w.config.Tenant = root
	require.NoError(t, w.run(&process{}))
	require.NotNil(t, w.pv(nameOf(*claim)))
}

// What could not be made with one class is made with the next.
func TestClassIsMended(t *testing.T) {
	w, claim := newWorld(t, aClass(map[string]string{"template": "gold"})), aClaim(theClaim, "10Gi")
	w.add(claim)
	require.ErrorContains(t, w.run(&process{}), `template "gold"`)
	w.replaceClass(aClass(nil))
	require.NoError(t, w.run(&process{}))
	require.NotContains(t, w.pv(nameOf(*claim)).Spec.FlexVolume.Options, "template")
	require.Len(t, w.array.AppInstances(root), 1)
}

func (w *world) replaceClass(class *storageClass) {
	_, err := w.kube.StorageV1().StorageClasses().Update(w.t.Context(), class, metav1.UpdateOptions{})
	require.NoError(w.t, err)
}

// A volume that a node had and that has no PersistentVolume any more was kept by somebody:
// a PersistentVolume from the journal could have it deleted.
func TestJournalLeavesUsedVolumesAlone(t *testing.T) {
	w, claim := interrupted(t, aClass(nil))
	w.wasAttached(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: nameOf(*claim)}})
	w.deleteClaim(theClaim)
	require.NoError(t, w.run(&process{}))
	require.Empty(t, w.pvs())
	require.Empty(t, w.journal())
	require.Len(t, w.array.AppInstances(root), 1)
}

// A new claim of the old one's name is another claim.
func TestJournalKnowsClaimsByUID(t *testing.T) {
	w, _ := interrupted(t, aClass(nil))
	w.deleteClaim(theClaim)
	w.add(aClaim(theClaim, "1Gi", func(claim *v1.PersistentVolumeClaim) { claim.UID = "new" }))
	require.NoError(t, w.run(&process{}))
	require.NoError(t, w.run(&process{}))
	require.Equal(t, []string{"k8s_kubernetes_pvc-new"}, w.array.AppInstances(root))
	require.Equal(t, "pvc-new", w.claim(theClaim).Spec.VolumeName)
}

func TestJournalIsKeptWhileTheArrayIsAway(t *testing.T) {
	w, _ := interrupted(t, aClass(nil))
	w.deleteClaim(theClaim)
	right := w.config.Password
	w.config.Password = "wrong"
	require.NoError(t, w.array.SetFault(dateratest.Fault{Name: dateratest.Expire}))
	w.config.RunDir = t.TempDir() // no session is left
	require.ErrorContains(t, w.run(&process{}), "finish the interrupted provisioning of pvc-")
	require.Len(t, w.journal(), 1)
	w.config.Password = right
	require.NoError(t, w.run(&process{}))
	w.isClean(0)
}

func TestJournalEntriesThatAreNoneOfOurs(t *testing.T) {
	for name, data := range map[string]string{"no JSON": "{", "another name": `{"metadata":{"name":"x"}}`, "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			w, claim := newWorld(t, aClass(nil)), aClaim(theClaim, "10Gi")
			w.add(claim)
			w.add(&v1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: nameOf(*claim), Labels: map[string]string{journalLabel: "true"}},
				Data:       map[string]string{journalKey: data},
			})
			p := w.provisioner()
			require.ErrorContains(t, p.FinishInterrupted(t.Context()), "understand ConfigMap kube-system/"+nameOf(*claim))
			_, _, err := p.Provision(t.Context(), w.options(*claim))
			require.ErrorContains(t, err, "delete it after a look on the array")
			require.Empty(t, w.array.AppInstances(root))
		})
	}
}

// An entry of an earlier attempt whose secret has gone cannot be judged: nothing is made.
func TestEarlierAttemptCannotBeRead(t *testing.T) {
	w, claim := newWorld(t, aClass(map[string]string{paramSecretName: "array", paramSecretNamespace: "storage"})), aClaim(theClaim, "10Gi")
	w.add(aSecret(w.config.ManagementIP))
	w.add(claim)
	_, _, err := w.provisioner().Provision(t.Context(), w.options(*claim))
	require.NoError(t, err)
	require.NoError(t, w.kube.CoreV1().Secrets("storage").Delete(t.Context(), "array", metav1.DeleteOptions{}))
	w.replaceClass(aClass(nil))
	require.ErrorContains(t, w.run(&process{}), "if the volume is not on the array, delete ConfigMap kube-system/")
	require.Len(t, w.array.AppInstances(root), 1)
}
