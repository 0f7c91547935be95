package driver

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Kubernetes knows a volume by the name of its PersistentVolume and asks for nothing while it counts as attached. So what it
// passes may be of another volume of that name, or of a pod that only read.

func TestPersistentVolumeIsMadeAnewWhileItsVolumeIsAttached(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
	restored := optionsWith(map[string]string{optVolumeID: "restored"})
	require.Contains(t, n.refused(t, "waitforattach", device, restored), "what is attached as pv-datera-0 is volume kube-pv-datera-0")
	require.Empty(t, n.disks)

	disk := n.ask(t, "waitforattach", device, optionsWith(nil)).Device
	require.Contains(t, n.refused(t, "mountdevice", globalPath, disk, restored), "what is attached as pv-datera-0 is volume kube-pv-datera-0")
	require.Empty(t, n.mounts, "the pod of one volume got another one")

	before, _, _ := strings.Cut(device, "&volume=") // as an earlier version wrote it
	n.ask(t, "waitforattach", before, optionsWith(nil))
}

func TestReaderDoesNotBecomeAWriter(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	reading, writing := optionsWith(map[string]string{keyReadWrite: "ro"}), optionsWith(nil)
	n := a.ask(t, "attach", writing, "node-a")
	a.ask(t, "mountdevice", globalPath, a.ask(t, "waitforattach", n.Device, writing).Device, writing) // it is formatted
	a.ask(t, "unmountdevice", globalPath)
	a.ask(t, "detach", "pv-datera-0", "node-a")

	device := a.ask(t, "attach", reading, "node-a").Device
	b.ask(t, "attach", reading, "node-b")
	require.Contains(t, a.refused(t, "waitforattach", device, writing), "is attached to this node to be read")
	disk := a.ask(t, "waitforattach", device, reading).Device
	require.Contains(t, a.refused(t, "mountdevice", globalPath, disk, writing), "is attached to this node to be read")
	require.Empty(t, a.mounts, "a node writes to what another one reads")
	require.True(t, *a.ask(t, "isattached", reading, "node-a").Attached)
	require.False(t, *a.ask(t, "isattached", writing, "node-a").Attached, "Kubernetes will never attach it to be written")
}

// optionsOn are options of a volume whose secret alone says on which array it is.
func optionsOn(address string) string {
	return optionsWith(map[string]string{keySecret + "server": secretOf(address),
		keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("password")}, optServer)
}

// Two volumes of one name on two arrays, told apart by their secrets alone.
func TestVolumesOfTwoArraysAreKeptApart(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone), func(c *Config) { c.Username, c.Password = "", "" })
	n.reaches("two.test", array(t))
	n.ask(t, "mount", podPath, optionsOn("two.test"))
	n.ask(t, "unmount", podPath) // without credentials of its own the node keeps its claim
	n.ask(t, "mount", podPath, optionsOn("sim.test"))
	n.ask(t, "mount", otherPod, optionsOn("two.test"))
	require.Len(t, n.disks, 2, "the pod of one array's volume got the other array's")
}

func TestOneVolumeHasOneKeyHoweverItIsSpelt(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	key := func(volume Volume) string {
		volume.AppInstance = "vol-1"
		key, err := n.directKey(volume)
		require.NoError(t, err)
		return key
	}
	secret := func(address string) *Credentials {
		server, err := ParseServer(address)
		require.NoError(t, err)
		return &Credentials{Server: server, Username: "admin", Password: "password"}
	}
	require.Equal(t, key(Volume{}), key(Volume{Tenant: "/root"}))
	require.Equal(t, key(Volume{Tenant: "dev"}), key(Volume{Tenant: "/root/dev"}))
	require.Equal(t, key(Volume{Secret: secret("array")}), key(Volume{Secret: secret("array:7717")}))
	require.NotEqual(t, key(Volume{Secret: secret("array")}), key(Volume{Secret: secret("array:8000")}))
	require.NotEqual(t, key(Volume{}), key(Volume{Tenant: "dev"}))
}

// A volume that is mounted while the driver is replaced keeps its key: its pods could not be unmounted otherwise.
func TestAKeyOfAFormerVersionIsKept(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	volume := Volume{AppInstance: "vol-1"}
	now, err := n.directKey(volume)
	require.NoError(t, err)
	former := keyOf(volume, "sim.test", "")
	require.NotEqual(t, former, now)
	require.NoError(t, n.journal().write(former, record{Name: "pv-1", AppInstance: "vol-1", Device: seedAttachment.String(), Direct: &directAttachment{Mount: "/x"}}))
	key, err := n.directKey(volume)
	require.NoError(t, err)
	require.Equal(t, former, key)
}

// A volume whose name went to another one may be in use under a third.
func TestLoginLeavesAnEarlierVolumeToWhoeverHasItNow(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	under := func(name, volume string) string {
		return optionsWith(map[string]string{keyName: name, optVolumeID: volume})
	}
	stage := func(options string) string {
		return n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	}
	stage(under("pv-a", "vol-1"))
	n.ask(t, "detach", "pv-a", "node-a")
	stage(under("pv-b", "vol-1"))
	stage(under("pv-a", "vol-2"))
	require.Len(t, n.disks, 2, "a disk was taken from under a volume's new name")
}

// The record of a volume that was never mounted is the only thing that leads to its session.
func TestLoginTakesAnEarlierVolumeOfTheNameOff(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	former := n.ask(t, "waitforattach", n.ask(t, "attach", optionsWith(nil), "node-a").Device, optionsWith(nil)).Device
	n.ask(t, "detach", "pv-datera-0", "node-a")
	again := optionsWith(map[string]string{optVolumeID: "again"})
	device := n.ask(t, "attach", again, "node-a").Device
	n.fails["released"] = errInjected
	require.Contains(t, n.refused(t, "waitforattach", device, again), "an earlier volume of this name, kube-pv-datera-0, is still on this node")
	delete(n.fails, "released")
	serial := n.disks[former].Target.Serial
	n.ask(t, "waitforattach", device, again)
	require.Len(t, n.disks, 1)
	for _, disk := range n.disks {
		require.NotEqual(t, serial, disk.Target.Serial, "the session of the former volume is left to nobody")
	}
}

func TestUnmountDeviceAfterJournalAndDiskAreGone(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	disk := n.stage(t, optionsWith(nil))
	delete(n.disks, disk)
	require.NoError(t, os.Remove(n.journal().inUse("pv-datera-0")))
	n.ask(t, "unmountdevice", globalPath)
	require.Empty(t, n.mounts)
}

// What earlier calls left is looked at for a moment only: the array may be silent, and the call has work of its own.
func TestAbandonedVolumesDoNotHoldUpACall(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	r := record{Name: "pv", AppInstance: "vol", Device: seedAttachment.String(), Direct: &directAttachment{Mount: "/mounts/vol", Server: "http://array"}}
	require.NoError(t, n.journal().write("vol", r))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	n.abandonUnused(over)
	require.Equal(t, []string{"vol"}, n.journal().used(), "it went on after its time was up")
}
