package kubelet

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"

	"datera-flexvolume/driver"
)

// What fails arrives with the driver's own words, in the event that `kubectl describe` shows.
func TestFailuresOfAttach(t *testing.T) {
	tests := map[string]struct {
		options map[string]string
		config  func(*driver.Config)
		says    string
	}{
		"an unknown option":       {options: map[string]string{"sise": "1"}, says: "size"},
		"a size that is none":     {options: map[string]string{"size": "big"}, says: `option size is "big"`},
		"another array":           {options: map[string]string{"backstoreServer": "example.org:7717"}, says: "are sent nowhere else"},
		"a wrong password":        {config: func(c *driver.Config) { c.Password = "wrong" }, says: "admin"},
		"quotes and a line's end": {options: map[string]string{"placementPolicy": "a\"b\n\\<&>"}, says: `placementPolicy`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k := newControl(t, newArray(t, driver.AttachController), test.config)
			volume := spec(test.options)
			device, err := k.attacher(volume).Attach(volume, nodeA)
			requireFailure(t, err, "attach", test.says)
			require.Empty(t, device)
		})
	}
}

// requireFailure wants the driver's words, not what is wrong with how it said them.
func requireFailure(t *testing.T, err error, verb, says string) {
	t.Helper()
	require.Error(t, err, "%s succeeded", verb)
	require.True(t, strings.HasPrefix(err.Error(), verb+" command failed, status: Failure, reason: "), "Kubernetes says %q", err)
	require.ErrorContains(t, err, says)
}

// The calls on the node, with nothing there.
func TestFailuresOnTheNode(t *testing.T) {
	k, pv := newControl(t, newArray(t, driver.AttachController), nil), spec()
	attacher := k.attacher(pv)
	_, err := attacher.WaitForAttach(pv, "/dev/sdb", web0, waitTime)
	requireFailure(t, err, "waitforattach", "/dev/sdb")

	path, err := attacher.GetDeviceMountPath(pv)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(k.root, "plugins/kubernetes.io/flexvolume/datera/iscsi/mounts", volumeName), path)
	requireFailure(t, attacher.MountDevice(pv, "/dev/sdb", path, volume.DeviceMounterArgs{}), "mountdevice", "waitforattach makes one")
	requireFailure(t, k.setUp(pv, web0), "mount", "mountdevice comes first")
	require.NoDirExists(t, k.mounter(pv, web0).GetPath(), "kubelet removes what it made for a mount that failed")
	requireFailure(t, k.grow(pv, web0, "/dev/sdb", "200Gi", "100Gi"), "expandfs", "mountdevice comes first")
}

// Credentials of a volume's own come in a Secret, which must be of the driver's type.
func TestSecret(t *testing.T) {
	array := newArray(t, driver.AttachNone)
	credentials := map[string]string{"username": "admin", "password": "pass\x00word", "server": "example.org:7717"}
	k := newControl(t, array, inMode(driver.AttachNone),
		secret("datera", driverName, credentials), secret("opaque", corev1.SecretTypeOpaque, credentials))
	k.plugin(spec())
	k.made()

	require.EqualError(t, k.setUp(withSecret(spec(), "opaque"), web0), "couldn't get secret shop/opaque err: cannot get secret of type datera/iscsi")
	k.step("SetUp, the Secret's type is Opaque")
	require.ErrorContains(t, k.setUp(withSecret(spec(), "nosuch"), web0), `"nosuch" not found`)
	k.step("SetUp, there is no such Secret")
	err := k.setUp(withSecret(spec(), "datera"), web0)
	requireFailure(t, err, "mount", `the volume's secret is for "example.org:7717": make them equal`)
	require.NotContains(t, err.Error(), "word")
	k.step("SetUp, the Secret's type is the driver's name")
	k.compare("secret.txt")
}
