package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

// longestCall is how long any call may take: its own deadline, and the time to say so.
const longestCall = 110 * time.Second

// answer makes a call that may fail. Whatever it meets, it ends in time, and nothing of it stays behind: a driver that
// touched a dead mount would be stuck in the kernel and could not end.
func answer(t *testing.T, node *lab.Machine, args ...string) driver.Reply {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), longestCall)
	defer cancel()
	result, err := node.Run(ctx, append([]string{lab.PluginDir + "/iscsi"}, args...)...)
	require.NoError(t, err, "%s did not end within %s", args[0], longestCall)
	var reply driver.Reply
	require.NoError(t, json.Unmarshal(result.Stdout, &reply), "%s: %s%s", args[0], result.Stdout, result.Stderr)
	t.Logf("%s on %s: %s after %s %s", args[0], node.Name, reply.Status, time.Since(begin).Round(100*time.Millisecond), reply.Message)
	require.Empty(t, shell(t, node, `cat /proc/[0-9]*/stat 2>/dev/null | grep -F '(iscsi) ' || :`), "%s left a process of the driver behind", args[0])
	return reply
}

// persist repeats a call as kubelet does, until it succeeds.
func persist(t *testing.T, node *lab.Machine, within time.Duration, args ...string) {
	t.Helper()
	var reply driver.Reply
	for end := time.Now().Add(within); time.Now().Before(end); {
		if reply = answer(t, node, args...); reply.Status == driver.Success {
			return
		}
	}
	require.FailNow(t, args[0]+" does not succeed", reply.Message)
}

// finishes makes calls that have nothing to do themselves: like each call they finish what earlier ones could not.
func finishes(t *testing.T, node *lab.Machine) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		require.Equal(t, driver.Success, answer(t, node, "unmount", lab.Volume{Name: "nobody"}.PodPath(podUID)).Status)
		if shell(t, node, "ls /var/lib/datera-iscsi/leaving 2>/dev/null || :") == "" {
			break
		}
	}
	clean(t, node)
}

// await waits on a machine until a shell's condition holds.
func await(t *testing.T, m *lab.Machine, condition string) {
	t.Helper()
	shell(t, m, "for i in {1..900}; do "+condition+" && exit 0; sleep 0.1; done; exit 1")
}

// cut takes a node's network to the array away: packets vanish in silence.
func cut(t *testing.T, node *lab.Machine) (restore func()) {
	t.Helper()
	restore = func() {
		for lan := range 2 {
			node.Plug(lan)
		}
	}
	t.Cleanup(restore)
	for lan := range 2 {
		node.Unplug(lan)
	}
	return restore
}

// begins starts a program on a node, as a process of a pod, which the test's end kills.
func begins(t *testing.T, node *lab.Machine, command vm.Command) *vm.Process {
	t.Helper()
	process, err := node.Spawn(context.WithoutCancel(t.Context()), command)
	require.NoError(t, err)
	t.Cleanup(func() { _ = process.Signal(syscall.SIGKILL) })
	return process
}

// writer writes to a volume, each block to the disk at once.
func writer(t *testing.T, node *lab.Machine, dir string) *vm.Process {
	t.Helper()
	process := begins(t, node, vm.Command{Args: []string{"dd", "if=/dev/zero", "of=" + dir + "/load", "bs=4k", "count=100000", "oflag=sync"}})
	await(t, node, "[ -s "+dir+"/load ]")
	return process
}

func kills(t *testing.T, process *vm.Process) {
	t.Helper()
	require.NoError(t, process.Signal(syscall.SIGKILL))
}

// slow skips a test that takes minutes, most of them spent in waiting for the kernel to give up.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("FAULTS") == "" {
		t.Skip("takes minutes; run it by: FAULTS=1 go test -count=1 -timeout 1h -run '^" + t.Name() + "$' ./testdata/e2e/")
	}
}

// The network of a node drops while a pod has the volume, idle on one node and writing on the other. The pod can be
// deleted, the node gets rid of the volume, and the volume goes to another node with all that was written.
func TestTargetDiesWhileMounted(t *testing.T) {
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 5 }, nodeA, nodeB)
	type life struct {
		volume lab.Volume
		node   *lab.Machine
		writes bool
		sum    string
	}
	idle := life{volume: newVolume(t, map[string]string{"volumeID": "e2e-idle"}), node: nodeA}
	busy := life{volume: newVolume(t, map[string]string{"kubernetes.io/pvOrVolumeName": "busy", "volumeID": "e2e-busy", "kubernetes.io/fsType": "ext4"}), node: nodeB, writes: true}
	busy.volume.Name = "busy"
	for _, l := range []*life{&idle, &busy} {
		stage(t, l.node, l.volume)
		call(t, l.node, "mount", l.volume.PodPath(podUID), l.volume.Request())
		l.sum = write(t, l.node, l.volume.PodPath(podUID))
	}
	t.Run("nodes", func(t *testing.T) {
		for name, l := range map[string]*life{"idle": &idle, "writing": &busy} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pod := l.volume.PodPath(podUID)
				var process *vm.Process
				if l.writes {
					process = writer(t, l.node, pod)
				}
				restore := cut(t, l.node)
				if l.writes {
					kills(t, process) // kubelet does; it hangs in the kernel until that gives the disk up
				}
				persist(t, l.node, 2*time.Minute, "unmount", pod)
				persist(t, l.node, 2*time.Minute, "unmountdevice", l.volume.GlobalPath())
				clean(t, l.node)
				restore()
			})
		}
	})
	for _, l := range []*life{&idle, &busy} {
		call(t, control, "detach", l.volume.Name, l.node.Name)
	}
	for l, other := range map[*life]*lab.Machine{&idle: nodeB, &busy: nodeA} {
		stage(t, other, l.volume)
		require.Equal(t, l.sum, read(t, other, l.volume.GlobalPath()), "what was written is lost")
		unstage(t, other, l.volume)
	}
}

// Somebody sits in the pod's directory and does not go. While the volume lives that is refused; when the target is dead
// the pod can be deleted all the same, and the node lets go of the disk when the last user has gone.
func TestDeadMountThatIsHeld(t *testing.T) {
	slow(t)
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 5 }, nodeA)
	volume := newVolume(t)
	pod := volume.PodPath(podUID)
	stage(t, nodeA, volume)
	call(t, nodeA, "mount", pod, volume.Request())
	sum := write(t, nodeA, pod)
	holder := begins(t, nodeA, vm.Command{Args: []string{"sleep", "1000"}, Dir: pod})
	require.Contains(t, refused(t, nodeA, "unmount", pod), "(sleep)")
	restore := cut(t, nodeA)
	persist(t, nodeA, 2*time.Minute, "unmount", pod)
	reply := answer(t, nodeA, "unmountdevice", volume.GlobalPath())
	require.Equal(t, driver.Failure, reply.Status)
	require.Contains(t, reply.Message, "still in use")
	restore()
	kills(t, holder)
	_, err := holder.Wait()
	require.NoError(t, err)
	finishes(t, nodeA)
	call(t, control, "detach", volume.Name, "node-a")
	stage(t, nodeB, volume)
	require.Equal(t, sum, read(t, nodeB, volume.GlobalPath()), "what was written is lost")
	unstage(t, nodeB, volume)
}

// A target is silent for longer than a call may take, and returns. Nothing is given up meanwhile: what the node had not
// written yet is written then, and the removal is finished.
func TestTargetReturns(t *testing.T) {
	slow(t)
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 600 }, nodeA)
	volume := newVolume(t)
	pod := volume.PodPath(podUID)
	stage(t, nodeA, volume)
	call(t, nodeA, "mount", pod, volume.Request())
	sum := shell(t, nodeA, "dd if=/dev/urandom of="+pod+"/data bs=64k count=16 status=none; sha256sum <"+pod+"/data") // not synced
	restore := cut(t, nodeA)
	call(t, nodeA, "unmount", pod)
	for range 2 {
		require.Equal(t, driver.Failure, answer(t, nodeA, "unmountdevice", volume.GlobalPath()).Status, "the disk was given up")
	}
	restore()
	persist(t, nodeA, 2*time.Minute, "unmountdevice", volume.GlobalPath())
	clean(t, nodeA)
	call(t, control, "detach", volume.Name, "node-a")
	stage(t, nodeB, volume)
	require.Equal(t, sum, read(t, nodeB, volume.GlobalPath()), "what was written is lost")
	unstage(t, nodeB, volume)
}

// One portal dies and returns, then the other, while a pod writes. It notices nothing but a pause.
func TestPortalsDieAndReturn(t *testing.T) {
	slow(t)
	volume := newVolume(t)
	stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	process := writer(t, nodeA, volume.GlobalPath())
	for lan := range 2 {
		nodeA.Unplug(lan)
		t.Cleanup(func() { nodeA.Plug(lan) })
		await(t, nodeA, "grep -q FAILED /sys/class/iscsi_session/session*/state")
		nodeA.Plug(lan)
		awaitSessions(t, nodeA, "2")
	}
	size := "stat -c %s " + volume.GlobalPath() + "/load"
	await(t, nodeA, "[ $("+size+") -gt "+shell(t, nodeA, size)+" ]")
	kills(t, process)
	exit, err := process.Wait()
	require.NoError(t, err)
	require.Equal(t, 128+int(syscall.SIGKILL), exit, "the writer has ended by itself: it met an error")
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}

// The array moves the portal by which the volume is mounted to another address. The session to the old one is tried for
// ever by iscsid, and the mount gets errors. The next attach brings the new address; the removal ends all sessions, and the
// pod comes up again with all that was written.
func TestArrayMovesAPortal(t *testing.T) {
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 5 }, nodeA)
	volume := newVolume(t)
	disk := stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	used := shell(t, nodeA, "cat /sys/block/"+strings.TrimPrefix(disk, "/dev/")+"/device/../../connection*/iscsi_connection/*/persistent_address")
	lan := used[len("10.9.") : len("10.9.")+1]
	portals := map[string][]string{"0": {"10.9.0.77", "10.9.1.1"}, "1": {"10.9.0.1", "10.9.1.77"}}[lan]
	address := "ip address %s 10.9." + lan + ".77/24 dev lan" + lan
	stop := "kill $(pidof datera-sim); while pidof datera-sim >/dev/null; do sleep 0.05; done; "
	shell(t, control, stop+fmt.Sprintf(address, "add"))
	moved := begins(t, control, vm.Command{Args: []string{"/usr/local/bin/datera-sim", "--listen", "0.0.0.0:7717", "--state", "/srv/datera",
		"--user", lab.User, "--password", lab.Password, "--portal", portals[0], "--portal", portals[1]}})
	t.Cleanup(func() {
		_, err := control.Shell(context.Background(), stop+fmt.Sprintf(address, "del"))
		require.NoError(t, err)
		_, _ = moved.Wait()
		require.NoError(t, center.StartArray(context.Background()))
	})
	await(t, control, "(exec 3<>/dev/tcp/127.0.0.1/7717) 2>/dev/null")
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	require.Contains(t, device, ".77:3260")
	require.NotContains(t, device, used+":3260")
	persist(t, nodeA, 2*time.Minute, "waitforattach", device, volume.Request())
	require.Equal(t, "3", shell(t, nodeA, "ls -d /sys/class/iscsi_session/session* | wc -l"), "the lost session is not there: the test is no test")
	persist(t, nodeA, 2*time.Minute, "unmountdevice", volume.GlobalPath())
	clean(t, nodeA)
	stage(t, nodeA, volume)
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}

// In attach mode none unmount asks the array to take the grant back. An array that is down keeps no pod from being
// deleted: the grant is given back later.
func TestArrayIsDownDuringUnmount(t *testing.T) {
	configure(t, func(c *driver.Config) { c.Attach = driver.AttachNone }, nodeA)
	volume := newVolume(t)
	pod := volume.PodPath(podUID)
	call(t, nodeA, "mount", pod, volume.Request())
	_ = center.Fault(t.Context(), "refuse", "15s") // it hangs up on this request, too
	await(t, control, "! (exec 3<>/dev/tcp/127.0.0.1/7717) 2>/dev/null")
	begin := time.Now()
	call(t, nodeA, "unmount", pod)
	require.Less(t, time.Since(begin), 30*time.Second)
	await(t, control, "(exec 3<>/dev/tcp/127.0.0.1/7717) 2>/dev/null")
	finishes(t, nodeA)
	// Nobody has the grant any more: the volume can be deleted, which newVolume's clean-up does.
}
