package provisioner

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// The roles in deploy/base allow what the provisioner does, and nothing that it does not.
func TestRoles(t *testing.T) {
	allowed := allowedBy(t, "../../deploy/base/provisioner.yaml")
	w := newWorld(t, aClass(map[string]string{"replica": "2"}))
	recorder := &fake.Clientset{}
	recorder.AddReactor("*", "*", func(action kubetesting.Action) (bool, runtime.Object, error) {
		result, err := w.kube.Invokes(action, nil)
		return true, result, err
	})
	recorder.AddWatchReactor("*", func(action kubetesting.Action) (bool, watch.Interface, error) {
		watcher, err := w.kube.InvokesWatch(action)
		return true, watcher, err
	})
	done := func() map[string]bool {
		done := map[string]bool{}
		for _, action := range recorder.Actions() {
			done[permission(action.GetVerb(), action.GetResource().Group, action.GetResource().Resource, action.GetNamespace() == namespace)] = true
		}
		return done
	}
	r := w.start(func(s *Settings) { s.Client = recorder })
	claim := aClaim(theClaim, "1Gi", forUs)
	foreign := "k8s_kubernetes_" + nameOf(*claim)
	_, err := w.array.CreateAppInstance(foreign, 1)
	require.NoError(t, err)
	w.create(claim) // fails again and again,
	w.await("the same failure twice", func() bool { return done()["patch events"] })
	w.replaceClass(aClass(nil)) // is noted anew, and succeeds,
	w.await("another try", func() bool { return done()["update configmaps in its namespace"] })
	for _, call := range []struct {
		method string
		body   map[string]any
	}{{"PUT", map[string]any{"admin_state": "offline"}}, {"DELETE", map[string]any{}}} {
		_, err := w.array.Do(root, call.method, "/app_instances/"+foreign, call.body)
		require.NoError(t, err)
	}
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	w.create(aClaim("kept", "1Gi", forUs)) // changes its reclaim policy,
	w.await("the claim is bound", func() bool { return w.claim("kept").Spec.VolumeName != "" })
	w.changePV(nameOf(*w.claim("kept")), func(pv *v1.PersistentVolume) {
		pv.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
	})
	w.deleteClaim(theClaim) // and goes
	w.await("the last permission in use", func() bool { return len(done()) >= len(allowed) })
	r.end()
	require.Equal(t, allowed, done())
}

// allowedBy are the permissions that a manifest gives.
func allowedBy(t *testing.T, manifest string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(manifest)
	require.NoError(t, err)
	allowed := map[string]bool{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbac.ClusterRole // a Role has the same rules
		require.NoError(t, yaml.Unmarshal([]byte(document), &role))
		if role.Kind != "Role" && role.Kind != "ClusterRole" {
			continue
		}
		for _, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				allowed[permission(verb, rule.APIGroups[0], rule.Resources[0], role.Kind == "Role")] = true
			}
		}
	}
	return allowed
}

func permission(verb, group, resource string, inNamespace bool) string {
	where := ""
	if inNamespace {
		where = " in its namespace"
	}
	return strings.TrimSuffix(verb+" "+resource+"."+group, ".") + where
}
