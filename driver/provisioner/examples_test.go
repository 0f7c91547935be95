package provisioner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"datera-flexvolume/driver"
)

// examples are the objects of each file in deploy/examples. A field that Kubernetes does not know is an error.
func examples(t *testing.T) map[string][]runtime.Object {
	t.Helper()
	files, err := filepath.Glob("../../deploy/examples/*.yaml")
	require.NoError(t, err)
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := map[string][]runtime.Object{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			object, _, err := decoder.Decode([]byte(document), nil, nil)
			require.NoError(t, err, file)
			objects[filepath.Base(file)] = append(objects[filepath.Base(file)], object)
		}
	}
	return objects
}

// ofKind are the objects of one kind, of all files.
func ofKind[T runtime.Object](files map[string][]runtime.Object) (objects []T) {
	for _, file := range files {
		for _, object := range file {
			if object, ok := object.(T); ok {
				objects = append(objects, object)
			}
		}
	}
	return objects
}

// Every example of a StorageClass is one that the provisioner takes, in one of their files with the Secret that it names.
func TestExampleClasses(t *testing.T) {
	for name, file := range examples(t) {
		class, ok := file[0].(*storage.StorageClass)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, class)
			for _, object := range file[1:] {
				if secret, ok := object.(*v1.Secret); ok {
					secret.Data = map[string][]byte{} // as the API server does with stringData
					for key, value := range secret.StringData {
						secret.Data[key] = []byte(value)
					}
					w.add(secret)
				}
			}
			require.Equal(t, Name, class.Provisioner)
			_, err := w.provisioner().design(t.Context(), w.driver(), w.options(*aClaim(theClaim, "10Gi", ofClass(class.Name))))
			require.NoError(t, err)
		})
	}
}

// Every example can be applied to a cluster that has the driver and nothing else: it brings the namespaces that it uses.
func TestExamplesBringTheirNamespaces(t *testing.T) {
	for name, file := range examples(t) {
		there := map[string]bool{"": true, "datera-system": true}
		for _, object := range file {
			accessor, err := meta.Accessor(object)
			require.NoError(t, err)
			if _, ok := object.(*v1.Namespace); ok {
				there[accessor.GetName()] = true
			}
			require.True(t, there[accessor.GetNamespace()], "%s: nothing before %s makes its namespace %s", name, accessor.GetName(), accessor.GetNamespace())
		}
	}
}

// Every example of a PersistentVolume is one that the driver takes, and says the same twice: to Kubernetes and to the driver.
func TestExampleVolumes(t *testing.T) {
	volumes := ofKind[*v1.PersistentVolume](examples(t))
	require.NotEmpty(t, volumes)
	for _, pv := range volumes {
		t.Run(pv.Name, func(t *testing.T) {
			w := newWorld(t)
			volume, err := w.provisioner().volumeOf(t.Context(), w.driver(), pv)
			require.NoError(t, err)
			require.Equal(t, driver.DriverName, pv.Spec.FlexVolume.Driver)
			require.Equal(t, pv.Spec.Capacity.Storage().Value(), volume.SizeGiB*gib)
			require.Equal(t, "kube-"+pv.Name, volume.AppInstance)
			require.Equal(t, v1.PersistentVolumeReclaimRetain, pv.Spec.PersistentVolumeReclaimPolicy)
		})
	}
}

// Every claim of the examples is one that its class, or a PersistentVolume, can satisfy, and every pod finds its claims.
func TestExampleClaims(t *testing.T) {
	files := examples(t)
	classes := map[string]bool{"": true}
	for _, class := range ofKind[*storage.StorageClass](files) {
		classes[class.Name] = true
	}
	claims := map[string]*v1.PersistentVolumeClaim{}
	for _, claim := range ofKind[*v1.PersistentVolumeClaim](files) {
		claims[claim.Name] = claim
	}
	for _, set := range ofKind[*apps.StatefulSet](files) {
		own := map[string]bool{}
		for _, template := range set.Spec.VolumeClaimTemplates {
			own[template.Name] = true
			claims[template.Name+"-"+set.Name+"-0"] = &template
		}
		for _, mount := range set.Spec.Template.Spec.Containers[0].VolumeMounts {
			require.True(t, own[mount.Name], "StatefulSet %s mounts %s", set.Name, mount.Name)
		}
	}
	for _, pod := range ofKind[*v1.Pod](files) {
		for _, volume := range pod.Spec.Volumes {
			require.Contains(t, claims, volume.PersistentVolumeClaim.ClaimName, "pod %s", pod.Name)
		}
	}
	for name, claim := range claims {
		require.NotNil(t, claim.Spec.StorageClassName, "claim %s would get the cluster's default class, whatever that is", name)
		require.Contains(t, classes, *claim.Spec.StorageClassName, "claim %s", name)
		require.NoError(t, checkClaim(claim, false), name)
		if source := sourceOf(claim); source != nil {
			require.Contains(t, claims, source.name, "claim %s", name)
		}
	}
}
