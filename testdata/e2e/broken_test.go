package e2e

import (
	"bytes"
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

// iscsid is stopped while the volume is mounted: the pod goes on. The node cannot log out without it, says so, and does it
// when iscsid is there again.
func TestIscsidIsStopped(t *testing.T) {
	volume := newVolume(t)
	stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	shell(t, nodeA, "kill $(pidof iscsid); while pidof iscsid >/dev/null; do sleep 0.05; done")
	t.Cleanup(func() { _, _ = nodeA.Shell(context.Background(), "pidof iscsid || iscsid") })
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	require.Contains(t, refused(t, nodeA, "unmountdevice", volume.GlobalPath()), "iscsid")
	shell(t, nodeA, "iscsid")
	finishes(t, nodeA)
	call(t, control, "detach", volume.Name, "node-a")
}

// Each iscsiadm is killed as soon as it is seen, in the middle of whatever it writes. That may leave the lock of the node
// records, for which every other one would wait 30 s and fail, and records without content, which none can read, replace or
// delete. The next call repairs both.
func TestIscsiadmIsKilled(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	for range 2 {
		for _, args := range [][]string{{"waitforattach", device, volume.Request()}, {"unmountdevice", volume.GlobalPath()}} {
			killer := begins(t, nodeA, vm.Command{Args: []string{"bash", "-c", `
				while :; do
					for p in /proc/[0-9]*; do read -r name <$p/comm && [ "$name" = iscsiadm ] && kill -9 ${p#/proc/}; done
				done 2>/dev/null`}})
			answer(t, nodeA, args...)
			kills(t, killer)
			_, err := killer.Wait()
			require.NoError(t, err)
			begin := time.Now()
			call(t, nodeA, args...)
			require.Less(t, time.Since(begin), 25*time.Second, "the call has waited for a dead iscsiadm's lock")
		}
		clean(t, nodeA)
	}
	call(t, control, "detach", volume.Name, "node-a")
}

// hangs puts in iscsiadm's place a program of that name that never ends.
func hangs(t *testing.T, node *lab.Machine) (restore func()) {
	t.Helper()
	require.NoError(t, node.Write(t.Context(), "/run/hangs/iscsiadm", strings.NewReader("#!/bin/bash\nwhile :; do sleep 1; done\n"), 0o755))
	shell(t, node, "mount --bind /run/hangs/iscsiadm $(readlink -f $(type -P iscsiadm))")
	mounted := true
	restore = func() {
		if mounted {
			_, err := node.Shell(context.Background(), "umount $(readlink -f $(type -P iscsiadm))")
			require.NoError(t, err)
			mounted = false
		}
	}
	t.Cleanup(restore)
	return restore
}

// kubelet tells a waitforattach to stop whose iscsiadm hangs: it answers in time, and leaves nothing.
func TestIscsiadmHangsInWaitForAttach(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	restore := hangs(t, nodeA)
	var stdout, stderr bytes.Buffer
	process := begin(t, nodeA, &stdout, &stderr, "waitforattach", device, volume.Request())
	await(t, nodeA, "grep -qsx iscsiadm /proc/[0-9]*/comm")
	told := time.Now()
	require.NoError(t, process.Signal(syscall.SIGTERM))
	_, err := process.Wait()
	require.NoError(t, err)
	require.Less(t, time.Since(told), 10*time.Second)
	require.Contains(t, stdout.String(), `"status":"Failure"`)
	restore()
	clean(t, nodeA)
	call(t, nodeA, "waitforattach", device, volume.Request())
	call(t, nodeA, "unmountdevice", volume.GlobalPath())
	call(t, control, "detach", volume.Name, "node-a")
	clean(t, nodeA)
}

// Nobody tells these calls to stop: they end by themselves, and what they could not do is done by the next.
func TestIscsiadmHangs(t *testing.T) {
	slow(t)
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	restore := hangs(t, nodeA)
	require.Equal(t, driver.Failure, answer(t, nodeA, "waitforattach", device, volume.Request()).Status)
	restore()
	stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	restore = hangs(t, nodeA)
	require.Equal(t, driver.Failure, answer(t, nodeA, "unmountdevice", volume.GlobalPath()).Status)
	restore()
	finishes(t, nodeA)
	call(t, control, "detach", volume.Name, "node-a")
	stage(t, nodeB, volume)
	require.Equal(t, sum, read(t, nodeB, volume.GlobalPath()))
	unstage(t, nodeB, volume)
}

// The disk under /var and /run is full, or was made read-only by its errors. Pods can be deleted, volumes leave the node;
// new ones are refused with the name of the place before anything is changed.
func TestDiskOfTheNodeIsBroken(t *testing.T) {
	for name, trouble := range map[string]struct{ breaks, mends string }{
		"full": {
			"dd if=/dev/zero of=/mnt/small/fill bs=4k 2>/dev/null || :; i=0; while : >/mnt/small/i$i; do i=$((i+1)); done 2>/dev/null",
			"rm /mnt/small/fill /mnt/small/i*",
		},
		"read-only": {"mount -o remount,ro /mnt/small", "mount -o remount,rw /mnt/small"},
	} {
		t.Run(name, func(t *testing.T) {
			shell(t, nodeA, "mkdir -p /mnt/small; mount -t tmpfs -o size=256k,nr_inodes=64 small /mnt/small")
			t.Cleanup(func() { _, _ = nodeA.Shell(context.Background(), "umount /mnt/small") })
			configure(t, func(c *driver.Config) { c.StateDir, c.RunDir = "/mnt/small/state", "/mnt/small/run" }, nodeA)
			volume := newVolume(t)
			pod := volume.PodPath(podUID)
			next := volume.With(map[string]string{"kubernetes.io/pvOrVolumeName": "next", "volumeID": "e2e-next-" + name})
			next.Name = "next"
			t.Cleanup(func() { remove(t, next) })
			device := call(t, control, "attach", next.Request(), "node-a").Reply.Device
			stage(t, nodeA, volume)
			call(t, nodeA, "mount", pod, volume.Request())

			shell(t, nodeA, trouble.breaks)
			require.Contains(t, refused(t, nodeA, "waitforattach", device, next.Request()), "/mnt/small/")
			call(t, nodeA, "unmount", pod)
			call(t, nodeA, "unmountdevice", volume.GlobalPath())
			clean(t, nodeA)

			shell(t, nodeA, trouble.mends)
			call(t, nodeA, "waitforattach", device, next.Request())
			call(t, nodeA, "unmountdevice", next.GlobalPath())
			clean(t, nodeA)
			call(t, control, "detach", next.Name, "node-a")
			call(t, control, "detach", volume.Name, "node-a")
		})
	}
}

// The disk vanishes under a mount and comes back under another name. What is mounted is a dead shell, which the next
// mountdevice replaces; it does not mount on top of it.
func TestDiskComesBackUnderAnotherName(t *testing.T) {
	volume := newVolume(t)
	pod := volume.PodPath(podUID)
	old := stage(t, nodeA, volume)
	call(t, nodeA, "mount", pod, volume.Request())
	sum := write(t, nodeA, pod)
	shell(t, nodeA, "for d in /sys/class/iscsi_session/session*/device/target*/*/delete; do echo 1 >$d; done")
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	call(t, nodeA, "unmount", pod)
	disk := call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
	require.NotEqual(t, old, disk)
	call(t, nodeA, "mountdevice", volume.GlobalPath(), disk, volume.Request())
	call(t, nodeA, "mount", pod, volume.Request())
	require.Equal(t, "1", shell(t, nodeA, "grep -c ' "+volume.GlobalPath()+" ' /proc/self/mountinfo"), "two mounts are stacked")
	require.Equal(t, sum, read(t, nodeA, pod))
	call(t, nodeA, "unmount", pod)
	unstage(t, nodeA, volume)
}

// After a crash, a node boots with the node records that it had. It logs in to none of its volumes by itself: they may be
// in use elsewhere by now. kubelet's next calls find the records, and go on.
func TestNodeThatCrashedLogsInToNothing(t *testing.T) {
	volume := newVolume(t)
	stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	shell(t, nodeA, "umount "+volume.GlobalPath()+"; iscsiadm -m node --logoutall=all >/dev/null; rm -r /run/datera-iscsi")
	require.Equal(t, "2", shell(t, nodeA, "find /etc/iscsi/nodes -type f | wc -l"), "there are no records: the test is no test")
	shell(t, nodeA, "iscsiadm -m node --loginall=automatic >/dev/null 2>&1 || :") // what distributions run at boot
	require.Empty(t, shell(t, nodeA, "ls /sys/class/iscsi_session"), "the node logged in by itself")
	stage(t, nodeA, volume)
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}
