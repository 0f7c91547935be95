//go:build oldest

package kubelet

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/flexvolume"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

func newProber(_ context.Context, plugins string, run exec.Interface) volume.DynamicPluginProber {
	return flexvolume.GetDynamicPluginProber(plugins, run)
}

func (h volumeHost) GetMounter(string) mount.Interface { return h.mounter }

func (k *kubelet) mounter(spec *volume.Spec, pod *corev1.Pod) volume.Mounter {
	k.t.Helper()
	mounter, err := k.plugin(spec).NewMounter(spec, pod, volume.VolumeOptions{})
	require.NoError(k.t, err)
	return mounter
}

func (k *kubelet) construct(plugin volume.VolumePlugin, name, path string) *volume.Spec {
	k.t.Helper()
	found, err := plugin.ConstructVolumeSpec(name, path)
	require.NoError(k.t, err)
	return found
}

// testsOfNode are all: this version's watcher, which makes a folder anew that is removed,
// never stops, so that its folders cannot be removed.
const testsOfNode = "."

func tempDir(t *testing.T) string {
	t.Helper()
	if os.Getenv(onNode) == "" {
		t.Skip("TestOnNode runs this on a machine that is thrown away")
	}
	dir, err := os.MkdirTemp("", "kubelet")
	require.NoError(t, err)
	return dir
}
