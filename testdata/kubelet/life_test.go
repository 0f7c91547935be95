package kubelet

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

const gib = 1 << 30

// The life of a volume on a node that was given it by attach.
func TestNode(t *testing.T) {
	for _, mode := range []driver.AttachMode{driver.AttachController, driver.AttachKubelet} {
		t.Run(string(mode), func(t *testing.T) {
			k, pv := newNode(t, mode), small(t)
			k.name(pv.PersistentVolume.Spec.FlexVolume.Options["volumeID"], "$VOLUME")
			device := k.attach(pv, nodeA)
			k.name(device, "$DEVICE")
			k.step("probe, Attach")
			disk, path := k.stage(pv, device)
			k.name(disk, "$DISK")
			k.step("WaitForAttach, MountDevice")
			again, _ := k.stage(pv, device)
			require.Equal(t, disk, again)
			k.step("WaitForAttach, MountDevice, again")
			again, _ = k.stage(pv, disk)
			require.Equal(t, disk, again)
			k.step("WaitForAttach, MountDevice for a second pod: kubelet knows the disk by now")

			k.share(pv)
			require.NoError(t, k.grow(pv, web0, disk, "2Gi", "1Gi"))
			k.step("NodeExpand")
			require.InDelta(t, 2*gib, k.capacity(pv, web1), gib/5, "the file system did not grow")

			found := k.restartAndTearDown(pv)
			k.unstage(found)
			k.step("UnmountDevice")
			k.unstage(found)
			k.step("UnmountDevice, again")
			require.Empty(t, leftOnNode(t), "left on the node after UnmountDevice")
			require.NoDirExists(t, path)
			k.wantAttached(pv, nodeA, true)
			k.detach(pv, nodeA)
			k.wantAttached(pv, nodeA, false)
			k.made()
			k.compare("node.txt")
		})
	}
}

// share gives the volume to two pods.
func (k *kubelet) share(pv *volume.Spec) {
	k.t.Helper()
	require.NoError(k.t, k.setUp(pv, web0))
	k.step("SetUp for a pod")
	write(k.t, k.podPath(pv, web0), "hello")
	require.NoError(k.t, k.setUp(pv, web0))
	k.step("SetUp, again")
	require.NoError(k.t, k.setUp(pv, web1))
	k.step("SetUp for a second pod, which has an fsGroup")
	require.Equal(k.t, "hello", read(k.t, k.podPath(pv, web1)))
	requireGroup(k.t, k.podPath(pv, web1))
	require.InDelta(k.t, gib, k.capacity(pv, web0), gib/10)
}

// restartAndTearDown starts kubelet while two pods have the volume, which are then
// deleted, and returns the volume as that kubelet knows it.
func (k *kubelet) restartAndTearDown(pv *volume.Spec) *volume.Spec {
	k.t.Helper()
	one, two := k.podPath(pv, web0), k.podPath(pv, web1)
	k.start()
	found := k.reconstructed(one)
	require.Empty(k.t, found.Volume.FlexVolume.Options)
	k.step("kubelet starts anew: probe, GetVolumeName of what it finds")
	k.tearDown(found, web0)
	k.step("TearDown of what it found")
	require.Equal(k.t, "hello", read(k.t, two), "the volume went away under the second pod")
	k.tearDown(found, web1)
	k.tearDown(found, web1)
	k.step("TearDown of the second pod, twice")
	return found
}

// requireGroup wants a directory and the file in it to belong to the pod's group.
func requireGroup(t *testing.T, dir string) {
	t.Helper()
	for path, wanted := range map[string]fs.FileMode{dir: fs.ModeDir | fs.ModeSetgid | 0o770, filepath.Join(dir, "letter"): 0o660} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.EqualValues(t, group, info.Sys().(*syscall.Stat_t).Gid, "group of %s", path)
		require.Equal(t, wanted, info.Mode()&wanted, "mode of %s: %v", path, info.Mode())
	}
}

// Where nobody attaches, SetUp goes the whole way with the credentials of the volume's
// Secret, and TearDown back without any.
func TestNodeAttachesByItself(t *testing.T) {
	k := newNode(t, driver.AttachNone, secret("datera", driverName, map[string]string{"username": lab.User, "password": lab.Password}))
	pv := withSecret(small(t), "datera")
	attachable, err := k.manager.FindAttachablePluginBySpec(pv)
	require.NoError(t, err)
	require.Nil(t, attachable)

	k.step("probe")
	k.share(pv)
	requireFailure(t, k.grow(pv, web0, "", "2Gi", "1Gi"), "expandfs", "this node cannot grow it on the array: no credentials")
	k.made()
	k.configure(nodeConfig(driver.AttachNone, true))
	require.NoError(t, k.grow(pv, web0, "", "2Gi", "1Gi"))
	k.step("NodeExpand")
	require.InDelta(t, 2*gib, k.capacity(pv, web1), gib/5, "the file system did not grow")
	k.configure(nodeConfig(driver.AttachNone, false))

	k.restartAndTearDown(pv)
	k.compare("node-none.txt")
}

// A claim that is read-only is read-only down to the disk, and no group gets the files.
func TestNodeReadOnlyClaim(t *testing.T) {
	k, pv := newNode(t, driver.AttachController), small(t)
	use := func(pv *volume.Spec, pod *corev1.Pod, do func(dir string)) {
		k.stage(pv, k.attach(pv, nodeA))
		require.NoError(t, k.setUp(pv, pod))
		do(k.podPath(pv, pod))
		k.tearDown(pv, pod)
		k.unstage(pv)
		k.detach(pv, nodeA)
	}
	use(pv, web0, func(dir string) { write(t, dir, "hello") })
	use(reading(pv), web1, func(dir string) {
		require.Equal(t, "hello", read(t, dir))
		require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600), syscall.EROFS)
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Zero(t, info.Sys().(*syscall.Stat_t).Gid, "group of %s", dir)
	})
}
