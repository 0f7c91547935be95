package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

// begin starts a call that is not waited for.
func begin(t *testing.T, node *lab.Machine, stdout, stderr *bytes.Buffer, args ...string) *vm.Process {
	t.Helper()
	process, err := node.Spawn(t.Context(), vm.Command{Args: append([]string{lab.PluginDir + "/iscsi"}, args...), Stdout: stdout, Stderr: stderr})
	require.NoError(t, err)
	return process
}

// kubelet sends SIGTERM to a waitforattach that takes too long, and panics when it lives
// ten seconds longer.
func TestWaitForAttachIsToldToStop(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	for lan := range 2 {
		nodeA.Unplug(lan)
		t.Cleanup(func() { nodeA.Plug(lan) })
	}
	var stdout, stderr bytes.Buffer
	process := begin(t, nodeA, &stdout, &stderr, "waitforattach", device, volume.Request())
	shell(t, nodeA, "until pidof iscsi >/dev/null; do sleep 0.02; done; sleep 0.5")
	told := time.Now()
	require.NoError(t, process.Signal(syscall.SIGTERM))
	exit, err := process.Wait()
	require.NoError(t, err)
	require.Less(t, time.Since(told), 10*time.Second)
	require.Zero(t, exit)
	require.Empty(t, stderr.String())
	var reply driver.Reply
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &reply), stdout.String())
	require.Equal(t, driver.Failure, reply.Status)
	for lan := range 2 {
		nodeA.Plug(lan)
	}
	clean(t, nodeA)
	call(t, nodeA, "waitforattach", device, volume.Request())
	call(t, nodeA, "unmountdevice", volume.GlobalPath())
	call(t, control, "detach", volume.Name, "node-a")
	clean(t, nodeA)
}

// A call that is killed at any moment is repeated by kubelet, and then goes on to the end.
func TestKilledAtAnyMoment(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	var disk, sum string
	for moment := 30 * time.Millisecond; moment < time.Second; moment += 120 * time.Millisecond {
		t.Run(fmt.Sprint(moment), func(t *testing.T) {
			kill(t, moment, "waitforattach", device, volume.Request())
			disk = call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
			if sum != "" { // an interrupted mkfs is not repeated: that is another test's business
				kill(t, moment, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			}
			call(t, nodeA, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			if sum == "" {
				sum = write(t, nodeA, volume.GlobalPath())
			}
			kill(t, moment, "mount", volume.PodPath(podUID), volume.Request())
			call(t, nodeA, "mount", volume.PodPath(podUID), volume.Request())
			require.Equal(t, sum, read(t, nodeA, volume.PodPath(podUID)))
			kill(t, moment, "unmount", volume.PodPath(podUID))
			call(t, nodeA, "unmount", volume.PodPath(podUID))
			kill(t, moment, "unmountdevice", volume.GlobalPath())
			call(t, nodeA, "unmountdevice", volume.GlobalPath())
			clean(t, nodeA)
		})
	}
	call(t, control, "detach", volume.Name, "node-a")
}

// kill starts a call and kills it a moment later.
func kill(t *testing.T, moment time.Duration, args ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	process := begin(t, nodeA, &stdout, &stderr, args...)
	select {
	case <-time.After(moment):
	case <-t.Context().Done():
	}
	_ = process.Signal(syscall.SIGKILL)
	_, err := process.Wait()
	require.NoError(t, err)
}
