package e2e

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
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
		"blocks in use": {source, func() {
			require.NoError(t, center.Fault(t.Context(), "capacity", "1"))
			shell(t, control, "rm -f /run/datera-iscsi/hints/*.json")
		}},
		"a clone": {clone, func() {}},
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
			killer := begins(t, nodeA, vm.Command{Args: []string{"bash", "-c", `
				for p in {1..100000}; do
					for p in /proc/[0-9]*; do read -r name <$p/comm && [ "$name" = mkfs.` + filesystem + ` ] && kill -9 $(pidof iscsi) && exit 0; done
				done 2>/dev/null
				exit 1`}})
			var stdout, stderr bytes.Buffer
			process := begin(t, nodeA, &stdout, &stderr, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			_, err := process.Wait()
			require.NoError(t, err)
			kills(t, killer)
			require.Empty(t, stdout.String(), "the call came to its end before it was killed")
			persist(t, nodeA, 2*time.Minute, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			write(t, nodeA, volume.GlobalPath())
			unstage(t, nodeA, volume)
		})
	}
}
