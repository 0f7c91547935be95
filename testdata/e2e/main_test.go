// Package e2e tries the driver on real open-iscsi, xfs and ext4, in virtual machines: an
// array and two nodes.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// The machines are shared by the tests: booting takes longer than most of them.
var (
	center       *lab.Lab
	control      *lab.Machine // where kube-controller-manager would run the driver
	nodeA, nodeB *lab.Machine
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer func() {
		if center != nil {
			center.Stop()
		}
	}()
	if err := startMachines(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func startMachines(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	started, err := lab.Start(ctx, lab.Options{Bin: "../../bin", Nodes: []string{"node-a", "node-b"}})
	if err != nil {
		return fmt.Errorf("start the machines: %w", err)
	}
	center, control, nodeA, nodeB = started, started.Array, started.Nodes["node-a"], started.Nodes["node-b"]
	for _, node := range []*lab.Machine{nodeA, nodeB} {
		result, err := node.Run(ctx, lab.PluginDir+"/iscsi", "register", node.Name)
		if err != nil || result.Exit != 0 {
			return fmt.Errorf("register %s: %v %s", node.Name, err, result.Stderr)
		}
	}
	return nil
}

// newVolume is a small volume of the test's own.
func newVolume(t *testing.T, changes ...map[string]string) lab.Volume {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")))
	volume := lab.SeedVolume().With(map[string]string{
		"kubernetes.io/pvOrVolumeName": name, "volumeID": "e2e-" + name[:min(len(name), 60)], "size": "1", "replica": "1",
	})
	volume.Name = name
	for _, change := range changes {
		volume = volume.With(change)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			remove(t, volume)
			return
		}
		// What a failed test left must not fail the next one.
		center.Stop()
		require.NoError(t, startMachines(context.Background()))
	})
	return volume
}

// remove deletes a volume from the array, as an administrator would.
func remove(t *testing.T, volume lab.Volume) {
	t.Helper()
	never := volume.With(map[string]string{"retainPolicy": "never"})
	result, err := control.Run(context.Background(), lab.PluginDir+"/iscsi", "delete", never.Request())
	require.NoError(t, err)
	require.Zero(t, result.Exit, "delete %s: %s", volume.Name, result.Stderr)
}

// call runs the driver as kubelet does and wants it to succeed.
func call(t *testing.T, m *lab.Machine, args ...string) lab.Call {
	t.Helper()
	call, err := m.Call(t.Context(), args...)
	require.NoError(t, err)
	require.Equal(t, driver.Success, call.Reply.Status, "%s on %s: %s", args[0], m.Name, call.Reply.Message)
	return call
}

// refused runs the driver, wants it to fail, and returns its message.
func refused(t *testing.T, m *lab.Machine, args ...string) string {
	t.Helper()
	call, err := m.Call(t.Context(), args...)
	require.NoError(t, err)
	require.Equal(t, driver.Failure, call.Reply.Status, "%s on %s was not refused: %s", args[0], m.Name, call.Line)
	return call.Reply.Message
}

// shell runs a script on a machine and wants it to succeed.
func shell(t *testing.T, m *lab.Machine, script string) string {
	t.Helper()
	result, err := m.Shell(t.Context(), "set -e -o pipefail\n"+script)
	require.NoError(t, err)
	require.Zero(t, result.Exit, "%s on %s: %s%s", script, m.Name, result.Stdout, result.Stderr)
	return strings.TrimSpace(string(result.Stdout))
}

const podUID = "6b99bd2a-628e-11e6-8463-0cc47ab41442"

// stage attaches and mounts a volume on a node, up to the global path, and returns its disk.
func stage(t *testing.T, node *lab.Machine, volume lab.Volume) string {
	t.Helper()
	device := call(t, control, "attach", volume.Request(), node.Name).Reply.Device
	disk := call(t, node, "waitforattach", device, volume.Request()).Reply.Device
	call(t, node, "mountdevice", volume.GlobalPath(), disk, volume.Request())
	return disk
}

// unstage is the way back.
func unstage(t *testing.T, node *lab.Machine, volume lab.Volume) {
	t.Helper()
	call(t, node, "unmountdevice", volume.GlobalPath())
	call(t, control, "detach", volume.Name, node.Name)
	clean(t, node)
}

// clean wants nothing left on a node: no session, disk, mount, node record, journal.
func clean(t *testing.T, node *lab.Machine) {
	t.Helper()
	require.Empty(t, shell(t, node, `
		for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session $(cat "$s/targetname")"; done
		lsscsi | sed 's/^/disk /'
		grep -E 'kubelet|/dev/(sd|dm)' /proc/mounts | sed 's/^/mount /' || :
		find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f 2>/dev/null | sed 's/^/record /' || :
		find /var/lib/datera-iscsi -type f 2>/dev/null | sed 's/^/journal /' || :
	`), "left on %s", node.Name)
}

// configure changes the driver's configuration on machines for the time of a test.
func configure(t *testing.T, change func(*driver.Config), machines ...*lab.Machine) {
	t.Helper()
	for _, machine := range machines {
		require.NoError(t, machine.Configure(t.Context(), change))
	}
	t.Cleanup(func() {
		for _, machine := range machines {
			require.NoError(t, machine.Configure(context.Background(), nil))
		}
	})
}
