package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// at makes a call beside others: what goes wrong is returned.
func at(t *testing.T, node *lab.Machine, args ...string) (driver.Reply, error) {
	var reply driver.Reply
	result, err := node.Run(t.Context(), append([]string{lab.PluginDir + "/iscsi"}, args...)...)
	if err == nil && (result.Exit != 0 || len(result.Stderr) > 0) {
		err = fmt.Errorf("%s: exit status %d, stderr %s", args[0], result.Exit, result.Stderr)
	}
	if err == nil {
		err = json.Unmarshal(result.Stdout, &reply)
	}
	return reply, err
}

// until repeats a call as kubelet does.
func until(t *testing.T, node *lab.Machine, args ...string) (driver.Reply, error) {
	var reply driver.Reply
	var err error
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); {
		if reply, err = at(t, node, args...); err != nil || reply.Status == driver.Success {
			return reply, err
		}
	}
	return reply, fmt.Errorf("%s does not succeed: %s", args[0], reply.Message)
}

// Volumes come and go on one node at the same time, each call by a process of its own, some twice at once. Each pod finds
// its own data. There are eight with FAULTS=1.
func TestVolumesAtOnce(t *testing.T) {
	volumes := 4
	if os.Getenv("FAULTS") != "" {
		volumes = 8
	}
	all := make([]lab.Volume, volumes)
	for i := range all {
		all[i] = newVolume(t, map[string]string{
			"kubernetes.io/pvOrVolumeName": fmt.Sprint("pv-", i), "volumeID": fmt.Sprint("e2e-at-once-", i),
			"kubernetes.io/fsType": []string{"xfs", "ext4"}[i%2],
		})
		all[i].Name = fmt.Sprint("pv-", i)
	}
	failures := make([]error, volumes)
	var group sync.WaitGroup
	for i, volume := range all {
		group.Go(func() { failures[i] = lead(t, nodeA, volume, fmt.Sprint("data of ", i)) })
	}
	group.Wait()
	for i, err := range failures {
		require.NoError(t, err, "volume %d", i)
	}
	clean(t, nodeA)
}

// lead leads a volume through its life, beside others.
func lead(t *testing.T, node *lab.Machine, volume lab.Volume, data string) error {
	pod, request := volume.PodPath(podUID), volume.Request()
	attached, err := until(t, control, "attach", request, node.Name)
	if err != nil {
		return err
	}
	twin := make(chan error, 1)
	go func() { _, err := until(t, node, "waitforattach", attached.Device, request); twin <- err }()
	disk, err := until(t, node, "waitforattach", attached.Device, request)
	if twinErr := <-twin; err != nil || twinErr != nil {
		return fmt.Errorf("%w, its twin: %w", err, twinErr)
	}
	for _, args := range [][]string{{"mountdevice", volume.GlobalPath(), disk.Device, request}, {"mount", pod, request}} {
		if _, err := until(t, node, args...); err != nil {
			return err
		}
	}
	result, err := node.Shell(t.Context(), fmt.Sprintf("echo '%s' >%s/data && sync -f %[2]s && cat %[2]s/data", data, pod))
	if err != nil || strings.TrimSpace(string(result.Stdout)) != data {
		return fmt.Errorf("the pod of %s reads %q: %s %w", volume.Name, result.Stdout, result.Stderr, err)
	}
	for _, args := range [][]string{{"unmount", pod}, {"unmountdevice", volume.GlobalPath()}} {
		if _, err := until(t, node, args...); err != nil {
			return err
		}
	}
	_, err = until(t, control, "detach", volume.Name, node.Name)
	return err
}

// All calls of one volume at the same time, as no kubelet makes them: whatever comes of each, none hangs, none breaks
// anything, and afterwards the volume is there with its data.
func TestAllCallsOfOneVolumeAtOnce(t *testing.T) {
	volume := newVolume(t)
	pod, request := volume.PodPath(podUID), volume.Request()
	disk := stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	device := call(t, control, "attach", request, "node-a").Reply.Device
	var group sync.WaitGroup
	failures := make(chan error, 20)
	for _, args := range [][]string{
		{"waitforattach", device, request}, {"mountdevice", volume.GlobalPath(), disk, request}, {"mount", pod, request},
		{"expandfs", request, disk, volume.GlobalPath(), fmt.Sprint(2 * gib), fmt.Sprint(gib)},
		{"unmount", pod}, {"unmountdevice", volume.GlobalPath()},
		{"waitforattach", device, request}, {"unmountdevice", volume.GlobalPath()}, {"mount", pod, request}, {"init"},
	} {
		group.Go(func() {
			reply, err := at(t, nodeA, args...)
			t.Logf("%s: %s %s", args[0], reply.Status, reply.Message)
			failures <- err
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	persist(t, nodeA, time.Minute, "unmount", pod)
	persist(t, nodeA, time.Minute, "unmountdevice", volume.GlobalPath())
	finishes(t, nodeA)
	stage(t, nodeA, volume)
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}
