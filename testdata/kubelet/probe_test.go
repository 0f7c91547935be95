package kubelet

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

func TestProbe(t *testing.T) {
	for mode, attaches := range map[driver.AttachMode]bool{driver.AttachController: true, driver.AttachKubelet: true, driver.AttachNone: false} {
		t.Run(string(mode), func(t *testing.T) {
			k, volume := newControl(t, newArray(t, mode), inMode(mode)), spec()
			require.Equal(t, driverName, k.plugin(volume).GetPluginName())
			attachable, err := k.manager.FindAttachablePluginBySpec(volume)
			require.NoError(t, err)
			require.Equal(t, attaches, attachable != nil, "attachable")
			mountable, err := k.manager.FindDeviceMountablePluginBySpec(volume)
			require.NoError(t, err)
			require.Equal(t, attaches, mountable != nil, "device-mountable")
			require.Equal(t, [][]string{{"iscsi", "init"}}, k.made(), "one probe serves all look-ups")
		})
	}
}

// A driver that is not configured, or badly, is found nevertheless: its calls say why.
func TestProbeWithoutConfiguration(t *testing.T) {
	tests := map[string]struct{ document, says string }{
		"no credentials":  {`{"log":{"path":""}}`, "no credentials for the array"},
		"an unknown mode": {`{"attach":"sometimes","log":{"path":""}}`, "accepted is controller, kubelet or none"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k, volume := newControl(t, newArray(t, driver.AttachController), nil), spec()
			k.writeBeside(".datera-config", []byte(test.document))
			k.start()
			_, err := k.attacher(volume).Attach(volume, nodeA)
			requireFailure(t, err, "attach", test.says)
		})
	}
}

// The driver is replaced by a rename, its configuration and log are written at any time.
func TestProbeAgain(t *testing.T) {
	array := newArray(t, driver.AttachController)
	k, volume := newControl(t, array, nil), spec()
	k.plugin(volume)
	k.made()

	k.configure(controlConfig(t.TempDir(), array, inMode(driver.AttachNone)))
	k.writeBeside(".iscsi.log", []byte("a line\n"))
	k.awaitWatcher("first")
	require.NotContains(t, k.made(), []string{"iscsi", "init"}, "a file with a dot made Kubernetes probe the driver")
	require.NotNil(t, k.attachable(volume))

	k.install(driverFolder, "iscsi")
	k.awaitWatcher("second")
	probes := slices.DeleteFunc(k.made(), func(call []string) bool { return call[0] != "iscsi" })
	require.Equal(t, [][]string{{"iscsi", "init"}}, probes, "a driver that was replaced is probed, once")
	attachable, err := k.manager.FindAttachablePluginBySpec(volume)
	require.NoError(t, err)
	require.Nil(t, attachable, "the attach mode changes with the next probe")
}

// awaitWatcher returns when Kubernetes has seen all that happened in its folder of drivers
// until now: when it finds one that came after.
func (k *kubelet) awaitWatcher(marker string) {
	k.t.Helper()
	k.install("datera~"+marker, marker)
	require.Eventually(k.t, func() bool {
		_, err := k.manager.FindPluginByName("datera/" + marker)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond, "the watcher did not see %s", filepath.Join(k.plugins, "datera~"+marker))
}
