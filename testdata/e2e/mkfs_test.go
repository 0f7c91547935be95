package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/testdata/lab"
)

// A disk reads blank, and the array knows better: blocks of it are in use, or it is a clone. Not one sector is written.
func TestBlankDiskOfWhichTheArrayKnowsData(t *testing.T) {
	source := newVolume(t)
	call(t, control, "attach", source.Request(), "node-a")
	call(t, control, "detach", source.Name, "node-a")
	clone := newVolume(t, map[string]string{"kubernetes.io/pvOrVolumeName": "clone", "volumeID": "e2e-blank-clone",
		"volumeSource": "/app_instances/" + source.Options["volumeID"] + "/storage_instances/storage-1/volumes/volume-1"})
	clone.Name = "clone"
	for name, test := range map[string]struct {
		volume lab.Volume
		knows  func()
	}{
		"blocks in use": {source, func() { require.NoError(t, center.Fault(t.Context(), "capacity", "1")) }},
		"a clone":       {clone, func() {}},
	} {
		t.Run(name, func(t *testing.T) {
			test.knows()
			device := call(t, control, "attach", test.volume.Request(), "node-a").Reply.Device
			require.NoError(t, center.Heal(t.Context()))
			require.Contains(t, device, "&format=never")
			disk := call(t, nodeA, "waitforattach", device, test.volume.Request()).Reply.Device
			message := refused(t, nodeA, "mountdevice", test.volume.GlobalPath(), disk, test.volume.Request())
			require.Contains(t, message, "reads blank, but the array says that there is data on it")
			require.Equal(t, "0", sectorsWritten(t, nodeA, disk))
			call(t, nodeA, "unmountdevice", test.volume.GlobalPath())
			call(t, control, "detach", test.volume.Name, "node-a")
			clean(t, nodeA)
		})
	}
}

// The driver is killed while mkfs runs. mkfs goes on to its end, nobody starts a second one, and kubelet's repetition
// mounts what it made.
func TestDriverIsKilledDuringMkfs(t *testing.T) {
	for _, filesystem := range []string{"xfs", "ext4"} {
		t.Run(filesystem, func(t *testing.T) {
			volume := newVolume(t, map[string]string{"kubernetes.io/fsType": filesystem})
			device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
			disk := call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
			// Comes before the real one in $PATH.
			wrapper := "/usr/local/sbin/mkfs." + filesystem
			script := "#!/bin/sh\nkill -9 $PPID\nexec /sbin/mkfs." + filesystem + ` "$@"`
			require.NoError(t, nodeA.Write(t.Context(), wrapper, strings.NewReader(script), 0o755))
			t.Cleanup(func() { _, _ = nodeA.Run(context.Background(), "rm", "-f", wrapper) })
			result, err := nodeA.Run(t.Context(), lab.PluginDir+"/iscsi", "mountdevice", volume.GlobalPath(), disk, volume.Request())
			require.NoError(t, err)
			require.Empty(t, string(result.Stdout), "the call came to its end before it was killed")
			persist(t, nodeA, 2*time.Minute, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			write(t, nodeA, volume.GlobalPath())
			unstage(t, nodeA, volume)
		})
	}
}
