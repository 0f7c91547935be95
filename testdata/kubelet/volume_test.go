package kubelet

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/volume"

	"datera-flexvolume/testdata/lab"
)

const (
	driverName = "datera/iscsi"
	volumeName = "pv-datera-0"
	nodeA      = types.NodeName("node-a")
	nodeB      = types.NodeName("node-b")
	// waitTime is kubelet's own for WaitForAttach.
	waitTime = 10 * time.Minute
)

// spec is the PersistentVolume of the seed documents, with some options changed.
func spec(changes ...map[string]string) *volume.Spec {
	options := map[string]string{"volumeID": "kube-" + volumeName, "size": "100", "replica": "3", "backstoreServer": lab.ArrayAddress}
	for _, change := range changes {
		maps.Copy(options, change)
	}
	return volume.NewSpecFromPersistentVolume(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volumeName},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("100Gi")},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				FlexVolume: &corev1.FlexPersistentVolumeSource{Driver: driverName, FSType: "xfs", Options: options},
			},
		},
	}, false)
}

// reading is the volume as a pod sees it whose claim is read-only.
func reading(writable *volume.Spec) *volume.Spec {
	return volume.NewSpecFromPersistentVolume(writable.PersistentVolume, true)
}

// inline is a volume that a pod names itself.
func inline(name string, options map[string]string) *volume.Spec {
	return volume.NewSpecFromVolume(&corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		FlexVolume: &corev1.FlexVolumeSource{Driver: driverName, FSType: "xfs", Options: options},
	}})
}

// withSecret refers the volume to a Secret of the pod's namespace.
func withSecret(spec *volume.Spec, name string) *volume.Spec {
	spec.PersistentVolume.Spec.FlexVolume.SecretRef = &corev1.SecretReference{Name: name}
	return spec
}

func secret(name string, kind corev1.SecretType, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Type: kind, Data: map[string][]byte{}}
	for key, value := range data {
		s.Data[key] = []byte(value)
	}
	return s
}

// Two pods of one node; the second wants its files to belong to a group.
var (
	web0 = pod("web-0", "6b99bd2a-628e-11e6-8463-0cc47ab41442", nil)
	web1 = pod("web-1", "7c88cd3b-628e-11e6-8463-0cc47ab41442", &corev1.PodSecurityContext{FSGroup: new(int64(group))})
)

const group = 1234

func pod(name string, uid types.UID, security *corev1.PodSecurityContext) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: uid},
		Spec:       corev1.PodSpec{ServiceAccountName: "web", SecurityContext: security},
	}
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
