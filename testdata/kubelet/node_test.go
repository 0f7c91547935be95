package kubelet

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/volume"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// onNode is set on the machine to which TestOnNode brings this program.
const onNode = "KUBELET_NODE"

const kubeletRoot = "/var/lib/kubelet"

// newNode is the kubelet of this machine. In mode none the node has no credentials.
func newNode(t *testing.T, mode driver.AttachMode, secrets ...runtime.Object) *kubelet {
	t.Helper()
	if os.Getenv(onNode) == "" {
		t.Skip("TestOnNode runs this on a node")
	}
	t.Cleanup(func() {
		if !t.Failed() {
			require.Empty(t, leftOnNode(t), "left on the node when the volume is gone")
		}
	})
	return newKubelet(t, kubeletRoot, filepath.Dir(lab.PluginDir), nodeConfig(mode, mode != driver.AttachNone), secrets...)
}

func nodeConfig(mode driver.AttachMode, credentials bool) driver.Config {
	config := driver.Config{Attach: mode, Log: driver.LogConfig{Path: "/var/log/datera-iscsi/iscsi.log", Level: "debug", MaxBackups: 5}}
	if credentials {
		config.ManagementIP, config.Username, config.Password = lab.ArrayAddress, lab.User, lab.Password
	}
	return config
}

// small is a volume of the test's own.
func small(t *testing.T) *volume.Spec {
	name := strings.NewReplacer("/", "-", "Test", "kube-").Replace(t.Name())
	return spec(map[string]string{"volumeID": name, "size": "1", "replica": "1"})
}

// leftOnNode lists what of a volume there is on this machine.
func leftOnNode(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{
		"/sys/class/iscsi_session/session*", "/sys/block/sd*", "/sys/block/dm-*",
		kubeletRoot + "/plugins/kubernetes.io/flexvolume/datera/iscsi/mounts/*", kubeletRoot + "/pods/*/volumes/datera~iscsi/*",
	} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		left = append(left, found...)
	}
	for _, folder := range []string{"/etc/iscsi/nodes", "/var/lib/iscsi/nodes", "/var/lib/datera-iscsi"} {
		_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				left = append(left, path)
			}
			return nil
		})
	}
	return append(left, mountsOf(t, "self")...)
}

// mountsOf lists the mounts below kubelet's directory that a process sees.
func mountsOf(t *testing.T, process string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/" + process + "/mountinfo")
	require.NoError(t, err)
	var mounts []string
	for line := range strings.Lines(string(table)) {
		if path := strings.Fields(line)[4]; strings.HasPrefix(path, kubeletRoot+"/") {
			mounts = append(mounts, path)
		}
	}
	return mounts
}

// stage makes the volume's file system available on the node, as kubelet does once for all pods.
func (k *kubelet) stage(spec *volume.Spec, device string) (disk, path string) {
	k.t.Helper()
	attacher := k.attacher(spec)
	disk, err := attacher.WaitForAttach(spec, device, web0, waitTime)
	require.NoError(k.t, err)
	require.FileExists(k.t, disk)
	path, err = attacher.GetDeviceMountPath(spec)
	require.NoError(k.t, err)
	require.NoError(k.t, k.deviceMounter(spec).MountDevice(spec, disk, path, volume.DeviceMounterArgs{}))
	return disk, path
}

func (k *kubelet) deviceMounter(spec *volume.Spec) volume.DeviceMounter {
	k.t.Helper()
	plugin, err := k.manager.FindDeviceMountablePluginBySpec(spec)
	require.NoError(k.t, err)
	mounter, err := plugin.NewDeviceMounter()
	require.NoError(k.t, err)
	return mounter
}

// unstage takes the volume off the node, and expects its directory to be gone.
func (k *kubelet) unstage(spec *volume.Spec) {
	k.t.Helper()
	plugin, err := k.manager.FindDeviceMountablePluginBySpec(spec)
	require.NoError(k.t, err)
	path, err := k.deviceMounter(spec).GetDeviceMountPath(spec)
	require.NoError(k.t, err)
	unmounter, err := plugin.NewDeviceUnmounter()
	require.NoError(k.t, err)
	require.NoError(k.t, unmounter.UnmountDevice(path))
	require.NoDirExists(k.t, path)
}

// podPath is where a pod sees the volume.
func (k *kubelet) podPath(spec *volume.Spec, pod *corev1.Pod) string {
	k.t.Helper()
	return k.mounter(spec, pod).GetPath()
}

// capacity is what kubelet reports of the pod's volume, in bytes.
func (k *kubelet) capacity(spec *volume.Spec, pod *corev1.Pod) int64 {
	k.t.Helper()
	metrics, err := k.mounter(spec, pod).GetMetrics()
	require.NoError(k.t, err)
	require.Positive(k.t, metrics.Available.Value())
	return metrics.Capacity.Value()
}

// grow is what kubelet does when a mounted volume is to be larger. It names the directory
// of a pod, not the one where the disk is mounted.
func (k *kubelet) grow(spec *volume.Spec, pod *corev1.Pod, disk, size, old string) error {
	k.t.Helper()
	plugin, err := k.manager.FindNodeExpandablePluginBySpec(spec)
	require.NoError(k.t, err)
	_, err = plugin.NodeExpand(volume.NodeResizeOptions{
		VolumeSpec: spec, DevicePath: disk, DeviceMountPath: k.podPath(spec, pod),
		NewSize: resource.MustParse(size), OldSize: resource.MustParse(old),
	})
	return err
}

// reconstructed is the volume as a kubelet knows it that was started while the volume was
// mounted: by its directory, without its options.
func (k *kubelet) reconstructed(path string) *volume.Spec {
	k.t.Helper()
	plugin, err := k.manager.FindPluginByName(driverName)
	require.NoError(k.t, err)
	found := k.construct(plugin, filepath.Base(path), path)
	name, err := plugin.GetVolumeName(found)
	require.NoError(k.t, err)
	require.Equal(k.t, volumeName, name)
	return found
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "letter"), []byte(text), 0o600))
}

func read(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "letter"))
	require.NoError(t, err)
	return string(text)
}
