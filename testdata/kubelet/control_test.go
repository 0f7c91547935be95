package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// newArray is a simulated array that knows node-b, and node-a where this machine is not it.
func newArray(t *testing.T, mode driver.AttachMode) *dateratest.Server {
	t.Helper()
	array := dateratest.Start(t)
	require.NoError(t, array.RegisterInitiator("iqn.1993-08.org.debian:01:node-b", driver.InitiatorName("kubernetes", "node-b")))
	if mode == driver.AttachController {
		require.NoError(t, array.RegisterInitiator("iqn.1993-08.org.debian:01:node-a", driver.InitiatorName("kubernetes", "node-a")))
	}
	return array
}

// newControl is kubelet, or kube-controller-manager, with an array and folders of its own.
func newControl(t *testing.T, array *dateratest.Server, change func(*driver.Config), secrets ...runtime.Object) *kubelet {
	t.Helper()
	dir := tempDir(t)
	return newKubelet(t, filepath.Join(dir, "kubelet"), filepath.Join(dir, "plugins"), controlConfig(dir, array, change), secrets...)
}

func controlConfig(dir string, array *dateratest.Server, change func(*driver.Config)) driver.Config {
	config := driver.Config{
		ManagementIP: array.Address(), Scheme: "http", Username: lab.User, Password: lab.Password, Aliases: []string{lab.ArrayAddress},
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Log: driver.LogConfig{Path: filepath.Join(dir, "iscsi.log"), Level: "debug", MaxBackups: 5},
	}
	if change != nil {
		change(&config)
	}
	return config
}

func inMode(mode driver.AttachMode) func(*driver.Config) {
	return func(c *driver.Config) { c.Attach = mode }
}

// What kube-controller-manager does or, in mode kubelet, kubelet on the node.
func TestControl(t *testing.T) {
	for _, mode := range []driver.AttachMode{driver.AttachController, driver.AttachKubelet} {
		t.Run(string(mode), func(t *testing.T) {
			if mode == driver.AttachKubelet && os.Getenv(onNode) == "" {
				t.Skip("attaches the initiator of the machine it runs on; TestOnNode runs this on a node")
			}
			array := newArray(t, mode)
			k, other := newControl(t, array, inMode(mode)), newControl(t, array, nil)
			volume := spec()

			plugin := k.attachable(volume)
			require.True(t, plugin.CanSupport(volume))
			k.step("probe, at the first look-up")
			for _, title := range []string{"GetVolumeName", "GetVolumeName, again: that it is not supported is remembered"} {
				name, err := plugin.GetVolumeName(volume)
				require.NoError(t, err)
				require.Equal(t, volumeName, name)
				k.step(title)
			}

			device := k.attach(volume, nodeA)
			require.Regexp(t, `^iscsi://[0-9.:,]+/iqn\..*\?serial=.*&size=100&volume=kube-pv-datera-0$`, device)
			k.step("Attach")
			require.Equal(t, device, k.attach(volume, nodeA))
			k.step("Attach, again")
			k.wantAttached(volume, nodeA, true)
			k.wantAttached(volume, nodeB, false)
			k.step("VolumesAreAttached, node by node")

			_, err := other.attacher(volume).Attach(volume, nodeB)
			require.ErrorContains(t, err, "attach command failed, status: Failure, reason: volume kube-pv-datera-0 cannot be attached read-write to node node-b: it is in use by node node-a (iqn.1993-08.org.debian:01:node-a)",
				"two nodes may write to one file system")

			require.NoError(t, k.expand(volume, "200Gi", "100Gi"))
			k.step("ExpandVolumeDevice")
			made, _ := array.AppInstance("/root", "kube-pv-datera-0")
			require.Equal(t, 200, made.SizeGiB)
			require.Equal(t, []string{"iqn.1993-08.org.debian:01:node-a"}, made.Allowed)

			k.detach(volume, nodeA)
			k.step("Detach")
			k.detach(volume, nodeA)
			k.step("Detach, again")
			k.wantAttached(volume, nodeA, false)
			made, _ = array.AppInstance("/root", "kube-pv-datera-0")
			require.Empty(t, made.Allowed, "the node may still log in")

			other.attach(volume, nodeB)
			_, err = k.attacher(volume).Attach(volume, nodeA)
			require.ErrorContains(t, err, "it is in use by node node-b (iqn.1993-08.org.debian:01:node-b)")
			k.compare("control.txt")
		})
	}
}

// A claim that is read-only lets several nodes read at once, and none write.
func TestReadOnlyClaim(t *testing.T) {
	k := newControl(t, newArray(t, driver.AttachController), nil)
	volume := spec()
	k.plugin(volume)
	k.made()
	k.attach(reading(volume), nodeA)
	k.step("Attach, the claim is read-only")
	k.attach(reading(volume), nodeB)
	k.wantAttached(reading(volume), nodeA, true)
	k.wantAttached(reading(volume), nodeB, true)
	k.detach(volume, nodeB)
	_, err := k.attacher(volume).Attach(volume, nodeB)
	require.ErrorContains(t, err, "node node-a", "a node may write while another reads")
	k.detach(volume, nodeA)
	k.made()

	volume.PersistentVolume.Spec.FlexVolume.ReadOnly = true
	k.attach(volume, nodeB)
	k.step("Attach, only the PersistentVolume is read-only: Kubernetes does not say so")
	_, err = k.attacher(volume).Attach(volume, nodeA)
	require.ErrorContains(t, err, "node node-b")
	k.compare("readonly.txt")
}

// A volume of a pod's own, without a PersistentVolume, has the name that it has in the pod.
func TestInlineVolume(t *testing.T) {
	k := newControl(t, newArray(t, driver.AttachController), nil)
	volume := inline("data", map[string]string{"volumeID": "kube-data", "size": "1"})
	k.plugin(volume)
	k.made()
	k.attach(volume, nodeA)
	k.wantAttached(volume, nodeA, true)
	k.detach(volume, nodeA)
	k.step("Attach, VolumesAreAttached, Detach of a volume that a pod names data")
	k.compare("inline.txt")
}

// What passes by itself, the driver rides over.
func TestRetries(t *testing.T) {
	for name, fault := range map[string]dateratest.Fault{
		"the array is busy":       {Name: dateratest.Unavailable, Value: "3"},
		"an answer is lost":       {Name: dateratest.LoseAnswer, Method: "POST", Path: "^/app_instances$"},
		"the session key expires": {Name: dateratest.Expire, Path: "^/initiator_groups"},
	} {
		t.Run(name, func(t *testing.T) {
			array := newArray(t, driver.AttachController)
			k, volume := newControl(t, array, nil), spec()
			require.NoError(t, array.SetFault(fault))
			require.NotEmpty(t, k.attach(volume, nodeA))
			k.wantAttached(volume, nodeA, true)
			require.Empty(t, array.Faults(), "the array did not misbehave")
			require.Equal(t, []string{"kube-pv-datera-0"}, array.AppInstances("/root"))
		})
	}
}

// What fails, Kubernetes repeats, and the driver goes on where it stopped.
func TestRepeatedAfterFailure(t *testing.T) {
	array := newArray(t, driver.AttachController)
	k, volume := newControl(t, array, nil), spec()
	_, err := k.attacher(volume).Attach(volume, "node-c")
	requireFailure(t, err, "attach", "run `iscsi register node-c` on that node")
	require.NoError(t, array.RegisterInitiator("iqn.1993-08.org.debian:01:node-c", driver.InitiatorName("kubernetes", "node-c")))
	require.NotEmpty(t, k.attach(volume, "node-c"))
	k.wantAttached(volume, "node-c", true)
}
