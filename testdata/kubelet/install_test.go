package kubelet

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

// The installer has Kubernetes ask the driver anew exactly when its answer changes.
func TestInstaller(t *testing.T) {
	array := newArray(t, driver.AttachController)
	k, volume := newControl(t, array, nil), spec()
	source := filepath.Join(t.TempDir(), "datera-config")
	document, err := json.Marshal(controlConfig(t.TempDir(), array, inMode(driver.AttachController)))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(source, document, 0o600))
	markers := 0
	// probes are how often the driver was asked since this was last called.
	probes := func() int {
		k.awaitWatcher("marker" + string(rune('a'+markers)))
		markers++
		return len(slices.DeleteFunc(k.made(), func(call []string) bool { return call[0] != "iscsi" }))
	}
	version := driverBinary()
	installer := func(args ...string) {
		t.Helper()
		cmd := exec.Command(version, append(args, "--host-root", filepath.Dir(k.plugins), "--run-dir", t.TempDir(), "--plugin-dir", "/"+filepath.Base(k.plugins), "--control-plane", "--node", "node-a")...)
		cmd.Env = []string{"DATERA_CONFIG=" + source}
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
	require.NoError(t, os.RemoveAll(filepath.Join(k.plugins, driverFolder)))
	probes()
	_, err = k.manager.FindPluginByName(driverName)
	require.Error(t, err)
	probes()

	installer("install")
	require.Equal(t, 1, probes(), "a new driver")
	require.NotNil(t, k.attachable(volume))
	installer("install")
	require.Zero(t, probes(), "nothing changed")
	version = nextVersion(t)
	installer("install")
	require.Equal(t, 1, probes(), "a new version")
	installer("install", "--attach", "kubelet")
	require.Zero(t, probes(), "the answer does not change")
	installer("install", "--attach", "none")
	require.Equal(t, 1, probes(), "the answer changes")
	attachable, err := k.manager.FindAttachablePluginBySpec(volume)
	require.NoError(t, err)
	require.Nil(t, attachable)

	installer("uninstall")
	probes()
	_, err = k.manager.FindPluginByName(driverName)
	require.Error(t, err)
	require.Zero(t, probes(), "Kubernetes goes on asking a driver that is gone")
}

// nextVersion is the driver with other bytes.
func nextVersion(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(driverBinary())
	require.NoError(t, err)
	next := filepath.Join(t.TempDir(), "iscsi")
	require.NoError(t, os.WriteFile(next, append(content, 0), 0o755)) // what follows the sections of an ELF file is not loaded
	return next
}
