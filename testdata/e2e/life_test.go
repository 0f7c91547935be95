package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/budget"
	"datera-flexvolume/testdata/lab"
)

const gib = 1 << 30

// write leaves a checksummed file on the volume.
func write(t *testing.T, node *lab.Machine, dir string) string {
	t.Helper()
	return shell(t, node, "dd if=/dev/urandom of="+dir+"/data bs=64k count=16 status=none; sync -f "+dir+"/data; sha256sum <"+dir+"/data")
}

func read(t *testing.T, node *lab.Machine, dir string) string {
	t.Helper()
	return shell(t, node, "sha256sum <"+dir+"/data")
}

// The whole life with both file systems, each call's programs and requests counted, each
// call repeated, and the move to another node.
func TestLife(t *testing.T) {
	for _, filesystem := range []string{"xfs", "ext4"} {
		t.Run(filesystem, func(t *testing.T) {
			volume := newVolume(t, map[string]string{"kubernetes.io/fsType": filesystem})
			pod := volume.PodPath(podUID)
			device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
			require.True(t, *call(t, control, "isattached", volume.Request(), "node-a").Reply.Attached)

			disk := spends(t, "waitforattach, two portals", nodeA, "waitforattach", device, volume.Request()).Reply.Device
			spends(t, "mountdevice, blank", nodeA, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			spends(t, "mount", nodeA, "mount", pod, volume.Request())
			sum := write(t, nodeA, pod)
			require.Equal(t, "2", shell(t, nodeA, "ls -d /sys/class/iscsi_session/session* | wc -l"), "not both portals were joined")
			require.Contains(t, shell(t, nodeA, "lsscsi"), "DATERA   IBLOCK")
			require.Equal(t, filesystem, shell(t, nodeA, "findmnt -n -o FSTYPE "+pod))
			if filesystem == "xfs" {
				require.Contains(t, shell(t, nodeA, "findmnt -n -o OPTIONS "+pod), "nouuid")
			}

			require.Equal(t, disk, spends(t, "waitforattach, repeated", nodeA, "waitforattach", device, volume.Request()).Reply.Device)
			spends(t, "mountdevice, repeated", nodeA, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			spends(t, "mount, repeated", nodeA, "mount", pod, volume.Request())
			require.Equal(t, sum, read(t, nodeA, pod))

			require.Contains(t, refused(t, control, "attach", volume.Request(), "node-b"), "node node-a")
			spends(t, "unmount", nodeA, "unmount", pod)
			spends(t, "unmountdevice, two portals", nodeA, "unmountdevice", volume.GlobalPath())
			spends(t, "unmount, repeated", nodeA, "unmount", pod)
			spends(t, "unmountdevice, repeated", nodeA, "unmountdevice", volume.GlobalPath())
			call(t, control, "detach", volume.Name, "node-a")
			clean(t, nodeA)

			device = call(t, control, "attach", volume.Request(), "node-b").Reply.Device
			require.Contains(t, device, "format=never", "the array does not know that there is data on the volume")
			disk = spends(t, "waitforattach, two portals", nodeB, "waitforattach", device, volume.Request()).Reply.Device
			spends(t, "mountdevice, formatted", nodeB, "mountdevice", volume.GlobalPath(), disk, volume.Request())
			require.Equal(t, sum, read(t, nodeB, volume.GlobalPath()), "the data did not come along")
			unstage(t, nodeB, volume)
		})
	}
}

// spends makes a call and holds it to its budget in the README's table, exactly.
func spends(t *testing.T, name string, node *lab.Machine, args ...string) lab.Call {
	t.Helper()
	made := call(t, node, args...)
	require.Equal(t, budget.Of(t, name), budget.Budget{Programs: made.Programs, Requests: made.Requests}, name)
	return made
}

func TestModeKubelet(t *testing.T) {
	configure(t, func(c *driver.Config) { c.Attach = driver.AttachKubelet }, nodeA, nodeB)
	volume := newVolume(t)
	var sum string
	for _, node := range []*lab.Machine{nodeA, nodeB} {
		device := call(t, node, "attach", volume.Request(), node.Name).Reply.Device
		disk := call(t, node, "waitforattach", device, volume.Request()).Reply.Device
		call(t, node, "mountdevice", volume.GlobalPath(), disk, volume.Request())
		call(t, node, "mount", volume.PodPath(podUID), volume.Request())
		if node == nodeA {
			sum = write(t, node, volume.PodPath(podUID))
		}
		require.Equal(t, sum, read(t, node, volume.PodPath(podUID)))
		call(t, node, "unmount", volume.PodPath(podUID))
		call(t, node, "unmountdevice", volume.GlobalPath())
		call(t, node, "detach", volume.Name, node.Name)
		clean(t, node)
	}
}

// In mode none the nodes have no credentials: those come with the volume's secret.
func TestModeNone(t *testing.T) {
	configure(t, func(c *driver.Config) {
		c.Attach, c.ManagementIP, c.Username, c.Password, c.Scheme = driver.AttachNone, "", "", "", "http"
	}, nodeA, nodeB, control)
	require.False(t, call(t, nodeA, "init").Reply.Capabilities.Attach)
	volume := newVolume(t, map[string]string{"kubernetes.io/secret/username": "YWRtaW4=", "kubernetes.io/secret/password": "cGFzc3dvcmQ="})
	one, two := volume.PodPath(podUID), volume.PodPath("7c88cd3b-628e-11e6-8463-0cc47ab41442")

	call(t, nodeA, "mount", one, volume.Request())
	call(t, nodeA, "mount", one, volume.Request())
	sum := write(t, nodeA, one)
	call(t, nodeA, "mount", two, volume.Request())
	require.Equal(t, sum, read(t, nodeA, two))
	require.Contains(t, refused(t, nodeB, "mount", one, volume.Request()), "node-a", "two nodes got one volume")
	clean(t, nodeB)
	call(t, nodeA, "unmount", one)
	require.Equal(t, sum, read(t, nodeA, two), "the volume went away under the second pod")
	call(t, nodeA, "unmount", two)
	call(t, nodeA, "unmount", two)
	clean(t, nodeA)
	require.NotContains(t, shell(t, nodeA, "ls "+filepath.Dir(volume.GlobalPath())), volume.Options["volumeID"], "the directory that mount made stays")

	call(t, nodeB, "mount", one, volume.Request())
	require.Equal(t, sum, read(t, nodeB, one))
	call(t, nodeB, "unmount", one)
	clean(t, nodeB)
}

func TestSecondPodOnTheSameNode(t *testing.T) {
	volume := newVolume(t)
	stage(t, nodeA, volume)
	one, two := volume.PodPath(podUID), volume.PodPath("7c88cd3b-628e-11e6-8463-0cc47ab41442")
	call(t, nodeA, "mount", one, volume.Request())
	call(t, nodeA, "mount", two, volume.Request())
	sum := write(t, nodeA, one)
	require.Equal(t, sum, read(t, nodeA, two))
	call(t, nodeA, "unmount", one)
	require.Contains(t, refused(t, nodeA, "unmountdevice", volume.GlobalPath()), two)
	require.Equal(t, sum, read(t, nodeA, two))
	call(t, nodeA, "unmount", two)
	unstage(t, nodeA, volume)
}

func TestReadOnly(t *testing.T) {
	for _, filesystem := range []string{"xfs", "ext4"} {
		t.Run(filesystem, func(t *testing.T) {
			volume := newVolume(t, map[string]string{"kubernetes.io/fsType": filesystem})
			reader := volume.With(map[string]string{"kubernetes.io/readwrite": "ro"})
			stage(t, nodeA, volume)
			sum := write(t, nodeA, volume.GlobalPath())
			unstage(t, nodeA, volume)

			// Two readers on two nodes at once; neither can write, and the disk does not change.
			for _, node := range []*lab.Machine{nodeA, nodeB} {
				disk := stage(t, node, reader)
				call(t, node, "mount", reader.PodPath(podUID), reader.Request())
				require.Equal(t, sum, read(t, node, reader.PodPath(podUID)))
				require.Contains(t, shell(t, node, "touch "+reader.PodPath(podUID)+"/x 2>&1 || :"), "Read-only file system")
				require.Contains(t, shell(t, node, "touch "+reader.GlobalPath()+"/x 2>&1 || :"), "Read-only file system")
				require.Equal(t, "0", sectorsWritten(t, node, disk), "a read-only mount wrote to the disk")
			}
			require.Contains(t, refused(t, control, "attach", volume.Request(), "node-a"), "node node-b")
			for _, node := range []*lab.Machine{nodeA, nodeB} {
				call(t, node, "unmount", reader.PodPath(podUID))
				unstage(t, node, reader)
			}
		})
	}
}

// sectorsWritten is how much was written to a disk since it is there.
func sectorsWritten(t *testing.T, node *lab.Machine, disk string) string {
	t.Helper()
	return shell(t, node, "awk '{ print $7 }' /sys/block/"+strings.TrimPrefix(disk, "/dev/")+"/stat")
}

func TestCHAP(t *testing.T) {
	one := driver.CHAPConfig{Username: "chap-user", Password: "chap-secret-1"}
	mutual := one
	mutual.MutualUsername, mutual.MutualPassword = "array-user", "array-secret"
	for name, chap := range map[string]driver.CHAPConfig{"one-way": one, "mutual": mutual} {
		t.Run(name, func(t *testing.T) {
			configure(t, func(c *driver.Config) { c.CHAP = chap }, control, nodeA)
			volume := newVolume(t)
			stage(t, nodeA, volume)
			shell(t, nodeA, "grep -q '"+chap.Username+"' /sys/class/iscsi_session/session*/username")
			unstage(t, nodeA, volume)

			wrong := chap
			wrong.Password = "wrong-secret-1"
			require.NoError(t, nodeA.Configure(t.Context(), func(c *driver.Config) { c.CHAP = wrong }))
			device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
			message := refused(t, nodeA, "waitforattach", device, volume.Request())
			require.Contains(t, message, "CHAP")
			require.NotContains(t, message, "wrong-secret-1")
			require.NotContains(t, shell(t, nodeA, "cat /var/log/datera-iscsi/*"), "-secret", "a CHAP secret is in the log")
			call(t, control, "detach", volume.Name, "node-a")
			clean(t, nodeA)
		})
	}
}

// One portal is enough to go on, and the other is joined when it is back.
func TestDeadPortal(t *testing.T) {
	volume := newVolume(t)
	nodeA.Unplug(1) // packets vanish in silence
	t.Cleanup(func() { nodeA.Plug(1) })
	stage(t, nodeA, volume)
	require.Equal(t, "1", shell(t, nodeA, "grep -l LOGGED_IN /sys/class/iscsi_session/session*/state | wc -l"))
	sum := write(t, nodeA, volume.GlobalPath())
	nodeA.Plug(1)

	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	call(t, nodeA, "waitforattach", device, volume.Request())
	require.Equal(t, "2", shell(t, nodeA, "grep -l LOGGED_IN /sys/class/iscsi_session/session*/state | wc -l"), "the portal that is back was not joined")
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}

func TestAllPortalsDead(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	shell(t, nodeA, "ip route add blackhole 10.9.0.1; ip route add blackhole 10.9.1.1")
	t.Cleanup(func() {
		_, _ = nodeA.Shell(context.Background(), "ip route del blackhole 10.9.0.1; ip route del blackhole 10.9.1.1")
	})
	message := refused(t, nodeA, "waitforattach", device, volume.Request())
	require.Contains(t, message, "10.9.0.1:3260")
	require.Contains(t, message, "10.9.1.1:3260")
	clean(t, nodeA)
	shell(t, nodeA, "ip route del blackhole 10.9.0.1; ip route del blackhole 10.9.1.1")
	call(t, nodeA, "waitforattach", device, volume.Request())
	call(t, nodeA, "unmountdevice", volume.GlobalPath())
	call(t, control, "detach", volume.Name, "node-a")
	clean(t, nodeA)
}

// kubelet calls only expandfs; the disk grows while it is written to.
func TestGrowth(t *testing.T) {
	for _, filesystem := range []string{"xfs", "ext4"} {
		t.Run(filesystem, func(t *testing.T) {
			volume := newVolume(t, map[string]string{"kubernetes.io/fsType": filesystem})
			disk := stage(t, nodeA, volume)
			sum := write(t, nodeA, volume.GlobalPath())
			grow := []string{"expandfs", volume.Request(), disk, volume.GlobalPath(), fmt.Sprint(3 * gib), fmt.Sprint(1 * gib)}
			spends(t, "expandfs", nodeA, grow...)
			spends(t, "expandfs, repeated", nodeA, grow...)
			require.Equal(t, fmt.Sprint(3*gib), shell(t, nodeA, "blockdev --getsize64 "+disk))
			kib := shell(t, nodeA, "df --output=size "+volume.GlobalPath()+" | tail -1")
			require.Greater(t, len(strings.TrimSpace(kib)), 6, "the file system has %s KiB", kib)
			shell(t, nodeA, "[ "+strings.TrimSpace(kib)+" -gt 2700000 ]")
			require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
			unstage(t, nodeA, volume)
		})
	}
}

func TestCloneBesideItsSource(t *testing.T) {
	source := newVolume(t)
	stage(t, nodeA, source)
	sum := write(t, nodeA, source.GlobalPath())
	clone := source.With(map[string]string{
		"kubernetes.io/pvOrVolumeName": "clone", "volumeID": "e2e-clone",
		"volumeSource": "/app_instances/" + source.Options["volumeID"] + "/storage_instances/storage-1/volumes/volume-1",
	})
	clone.Name = "clone"
	t.Cleanup(func() { remove(t, clone) })
	stage(t, nodeA, clone)
	require.Equal(t, sum, read(t, nodeA, clone.GlobalPath()), "the clone has other data than its source")
	shell(t, nodeA, "rm "+clone.GlobalPath()+"/data; sync -f "+clone.GlobalPath())
	require.Equal(t, sum, read(t, nodeA, source.GlobalPath()), "writing to the clone changed its source")
	call(t, nodeA, "unmountdevice", clone.GlobalPath())
	call(t, control, "detach", clone.Name, "node-a")
	unstage(t, nodeA, source)
}

// With multipathd the map is used, and a portal that dies under load does not stop a write.
func TestMultipath(t *testing.T) {
	shell(t, nodeA, `
		mkdir -p /etc/multipath
		printf 'defaults {\n find_multipaths no\n polling_interval 1\n no_path_retry 10\n}\nblacklist {\n devnode "^vd"\n}\n' >/etc/multipath.conf
		modprobe -a dm_multipath dm_service_time dm_round_robin
		multipathd
		for i in {1..100}; do multipathd show status >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1`)
	t.Cleanup(func() {
		_, err := nodeA.Shell(context.Background(), "kill $(pidof multipathd); while pidof multipathd >/dev/null; do sleep 0.1; done; rm /etc/multipath.conf")
		require.NoError(t, err)
	})
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 5 }, nodeA)

	volume := newVolume(t)
	disk := stage(t, nodeA, volume)
	require.Regexp(t, `^/dev/dm-\d+$`, disk)
	require.Equal(t, "2", shell(t, nodeA, "ls /sys/block/"+strings.TrimPrefix(disk, "/dev/")+"/slaves | wc -l"))
	sum := write(t, nodeA, volume.GlobalPath())
	call(t, nodeA, "expandfs", volume.Request(), disk, volume.GlobalPath(), fmt.Sprint(2*gib), fmt.Sprint(1*gib))
	require.Equal(t, fmt.Sprint(2*gib), shell(t, nodeA, "blockdev --getsize64 "+disk))
	nodeA.Unplug(1)
	shell(t, nodeA, "for i in 1 2 3 4 5 6 7 8 9 10; do dd if=/dev/zero of="+volume.GlobalPath()+"/load bs=64k count=16 oflag=direct status=none; sleep 0.3; done")
	nodeA.Plug(1)
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))
	unstage(t, nodeA, volume)
}

// The simulator's other target numbers LUNs from 1.
func TestOnTgt(t *testing.T) {
	other, err := lab.Start(t.Context(), lab.Options{Bin: "../../bin", Nodes: []string{"node-a"}, Target: "tgt"})
	require.NoError(t, err)
	t.Cleanup(other.Stop)
	node, volume := other.Nodes["node-a"], newVolume(t)
	shell(t, node, lab.PluginDir+"/iscsi register node-a")
	device := call(t, other.Array, "attach", volume.Request(), "node-a").Reply.Device
	require.Contains(t, device, "/1?serial=")
	disk := call(t, node, "waitforattach", device, volume.Request()).Reply.Device
	call(t, node, "mountdevice", volume.GlobalPath(), disk, volume.Request())
	sum := write(t, node, volume.GlobalPath())
	require.Contains(t, shell(t, node, "lsscsi"), "DATERA   IBLOCK")
	call(t, node, "expandfs", volume.Request(), disk, volume.GlobalPath(), fmt.Sprint(2*gib), fmt.Sprint(1*gib))
	require.Equal(t, sum, read(t, node, volume.GlobalPath()))
	call(t, node, "unmountdevice", volume.GlobalPath())
	call(t, other.Array, "detach", volume.Name, "node-a")
	clean(t, node)
}

// detach is the fence: a node that still has the volume mounted cannot write any more.
func TestDetachFencesANodeThatDoesNotLetGo(t *testing.T) {
	configure(t, func(c *driver.Config) { c.ReplacementTimeout = 5 }, nodeA)
	volume := newVolume(t)
	stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	call(t, control, "detach", volume.Name, "node-a") // node-a is taken for dead
	stage(t, nodeB, volume)
	require.Equal(t, sum, read(t, nodeB, volume.GlobalPath()))
	written := shell(t, nodeA, "timeout 5 dd if=/dev/zero of="+volume.GlobalPath()+"/late bs=4k count=1 oflag=direct,sync 2>&1 && echo WRITTEN || :")
	require.NotContains(t, written, "WRITTEN", "a fenced node could write")
	unstage(t, nodeB, volume)
	// The dead node comes back to its senses and cleans up.
	call(t, nodeA, "unmountdevice", volume.GlobalPath())
	clean(t, nodeA)
}

func TestMountPointsThatAreNoGood(t *testing.T) {
	volume := newVolume(t)
	disk := stage(t, nodeA, volume)
	full, file := volume.PodPath("full"), volume.PodPath("file")
	shell(t, nodeA, "mkdir -p "+full+" $(dirname "+file+"); touch "+full+"/precious "+file)
	require.Contains(t, refused(t, nodeA, "mount", full, volume.Request()), "empty")
	require.Contains(t, refused(t, nodeA, "mount", file, volume.Request()), "directory")
	shell(t, nodeA, "ls "+full+"/precious")
	require.Contains(t, refused(t, nodeA, "mountdevice", volume.GlobalPath(), "/dev/ram0", volume.Request()), "/dev/ram0")
	other := volume.With(map[string]string{"kubernetes.io/pvOrVolumeName": "other", "volumeID": "e2e-other"})
	other.Name = "other"
	t.Cleanup(func() { remove(t, other) })
	stage(t, nodeA, other)
	require.Contains(t, refused(t, nodeA, "mountdevice", other.GlobalPath(), disk, other.Request()), "not this volume's")
	call(t, nodeA, "unmountdevice", other.GlobalPath())
	call(t, control, "detach", other.Name, "node-a")
	shell(t, nodeA, "rm -r /var/lib/kubelet/pods")
	unstage(t, nodeA, volume)
}

// A foreign file system is refused by name, and nothing on the disk changes.
func TestForeignFileSystemIsLeftAlone(t *testing.T) {
	volume := newVolume(t, map[string]string{"kubernetes.io/fsType": "ext4"})
	stage(t, nodeA, volume)
	write(t, nodeA, volume.GlobalPath())
	unstage(t, nodeA, volume)
	asXFS := volume.With(map[string]string{"kubernetes.io/fsType": "xfs"})
	device := call(t, control, "attach", asXFS.Request(), "node-a").Reply.Device
	disk := call(t, nodeA, "waitforattach", device, asXFS.Request()).Reply.Device
	require.Contains(t, refused(t, nodeA, "mountdevice", volume.GlobalPath(), disk, asXFS.Request()), "holds ext4")
	require.Equal(t, "0", sectorsWritten(t, nodeA, disk))
	unstage(t, nodeA, volume)
}
