//go:build !oldest

package kubelet

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/flexvolume"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

// What the versions of Kubernetes write differently: here the newest, in oldest_test.go the oldest.

func newProber(ctx context.Context, plugins string, run exec.Interface) volume.DynamicPluginProber {
	return flexvolume.GetDynamicPluginProber(ctx, plugins, run)
}

func (h volumeHost) GetMounter() mount.Interface { return h.mounter }

func (k *kubelet) mounter(spec *volume.Spec, pod *corev1.Pod) volume.Mounter {
	k.t.Helper()
	mounter, err := k.plugin(spec).NewMounter(spec, pod)
	require.NoError(k.t, err)
	return mounter
}

func (k *kubelet) construct(plugin volume.VolumePlugin, name, path string) *volume.Spec {
	k.t.Helper()
	found, err := plugin.ConstructVolumeSpec(name, path)
	require.NoError(k.t, err)
	return found.Spec
}

// testsOfNode are those that need a node.
const testsOfNode = "^(TestNode.*|TestControl)$"

func tempDir(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}
