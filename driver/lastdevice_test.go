package driver

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWaitForAttachGetsThePathOfADisk(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", newNode(t, server, "control").ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.takeDone()

	require.Equal(t, disk, n.ask(t, "waitforattach", disk, options).Device, "for a second pod")
	require.Empty(t, n.takeDone())
	other := optionsWith(map[string]string{"volumeID": "another"})
	require.Contains(t, n.refused(t, "waitforattach", disk, other), "no longer known on this node", "another volume got the disk")

	require.NoError(t, os.Remove(n.lastDevicePath("pv-datera-0")))
	require.Equal(t, disk, n.ask(t, "waitforattach", disk, options).Device, "the journal knows it, too")

	n.ask(t, "unmountdevice", globalPath)
	n.takeDone()
	require.Equal(t, disk, n.ask(t, "waitforattach", "/dev/of-another-volume-by-now", options).Device, "a pod came back before the detach")
	require.Equal(t, []string{"login"}, words(n.takeDone()))
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.ask(t, "unmountdevice", globalPath)

	require.NoError(t, os.Remove(n.lastDevicePath("pv-datera-0")))
	require.Contains(t, n.refused(t, "waitforattach", disk, options), "restart kubelet")
}
