package driver

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

func TestMountDeviceFormatsOnlyWhatIsProvablyBlank(t *testing.T) {
	tests := map[string]struct {
		content mount.Content
		device  func(string) string
		options map[string]string
		says    string
	}{
		"another file system":     {mount.Content{Filesystem: "ext4", Detail: "at offset 1024"}, nil, nil, "holds ext4 (at offset 1024), not xfs"},
		"LVM":                     {mount.Content{Filesystem: "LVM2_member"}, nil, nil, "holds LVM2_member"},
		"unknown bytes":           {mount.Content{Detail: "non-zero bytes at offset 65536"}, nil, nil, "non-zero bytes at offset 65536"},
		"a damaged xfs":           {mount.Content{Filesystem: "xfs", Damaged: true, Detail: "primary destroyed"}, nil, nil, "damaged xfs (primary destroyed)"},
		"the array knows of data": {mount.Content{Blank: true}, func(device string) string { return device + "&format=never" }, nil, "the array says that there is data"},
		"a read-only mount":       {mount.Content{Blank: true}, nil, map[string]string{keyReadWrite: "ro"}, "mount it read-write once"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, array(t), "node-a").registered(t)
			options := optionsWith(test.options)
			device := n.ask(t, "attach", options, "node-a").Device
			attachment, err := ParseAttachment(device)
			require.NoError(t, err)
			n.content[attachment.Target.Serial] = test.content
			if test.device != nil {
				device = test.device(device)
			}
			disk := n.ask(t, "waitforattach", device, options).Device
			message := n.refused(t, "mountdevice", globalPath, disk, options)
			require.Contains(t, message, test.says)
			require.Contains(t, message, "kube-pv-datera-0", "the message does not name the volume")
			require.Equal(t, []string{"login"}, words(n.takeDone()), "the disk was touched")
		})
	}
}

func TestMountDeviceAfterAReadError(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", optionsWith(nil), "node-a").Device, optionsWith(nil)).Device
	n.fails["inspect"] = errors.New("read at offset 0: input/output error")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, disk, optionsWith(nil)), "input/output error")
	require.Equal(t, []string{"login"}, words(n.takeDone()), "a disk that cannot be read was formatted or mounted")
}

func TestMountDeviceRefusesAForeignDisk(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	one := optionsWith(nil)
	two := optionsWith(map[string]string{keyName: "pv-datera-1", optVolumeID: "kube-pv-datera-1"})
	n.ask(t, "waitforattach", n.ask(t, "attach", one, "node-a").Device, one)
	other := n.ask(t, "waitforattach", n.ask(t, "attach", two, "node-a").Device, two).Device
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, one), "not this volume's")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, "/dev/sda", one), "/dev/sda")
	require.Contains(t, n.refused(t, "mountdevice", "relative/path", other, one), "absolute path")
	require.NoError(t, os.RemoveAll(n.Config.StateDir))
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, one), "no record on this node")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, two), "accepted is the one of volume pv-datera-1")
}

func TestMountRefuses(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	require.Contains(t, n.refused(t, "mount", podPath, options), "mountdevice comes first")
	require.Contains(t, n.refused(t, "mount", "/tmp/x", options), "pods/UID/volumes/datera~iscsi/NAME")
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	require.Contains(t, n.refused(t, "mount", podPath, optionsWith(map[string]string{optVolumeID: "another-volume"})), "two pods use one volume name")
}

func TestReadOnlyIsHonoured(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(map[string]string{keyReadWrite: "ro"})
	device := n.ask(t, "attach", options, "node-a").Device
	attachment, err := ParseAttachment(device)
	require.NoError(t, err)
	n.content[attachment.Target.Serial] = mount.Content{Filesystem: "xfs"}
	disk := n.ask(t, "waitforattach", device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.ask(t, "mount", podPath, options)
	for _, mounted := range n.mounts {
		require.True(t, mounted.ReadOnly, "%s is mounted read-write", mounted.Path)
	}
	require.Contains(t, n.refused(t, "mount", otherPod, optionsWith(nil)), "mounted read-only on this node")
}

func TestUnmountDeviceFinishesWhatWasCutOff(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.fails["logout"] = errInjected
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "injected")
	require.NotEmpty(t, n.disks)
	delete(n.fails, "logout")

	// kubelet calls no unmountdevice for a path that is no mount point any more: the next
	// call, whatever it is, has to finish the work.
	n.ask(t, "unmount", otherPod)
	require.Empty(t, n.disks, "the session stays for ever")
	require.Empty(t, n.journal().unfinished())
}

func TestUnmountDeviceWithoutARecord(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	require.NoError(t, os.RemoveAll(n.Config.StateDir))
	n.ask(t, "unmountdevice", globalPath)
	require.Empty(t, n.disks, "without its record the session was forgotten")
}

func TestUnmountDeviceRefuses(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	require.Contains(t, n.refused(t, "unmountdevice", "/"), "absolute path")
	require.Contains(t, n.refused(t, "unmountdevice", "/home"), "accepted is where kubelet mounts")
	require.Contains(t, n.refused(t, "unmountdevice", kubeletRoot+"/"+globalMounts+"/UPPER"), "volume name")
	require.Contains(t, n.refused(t, "unmount", "/home"), "accepted is a pod's volume directory")
	n.mounts = []mount.Mount{{Device: "/dev/sda1", Path: globalPath}}
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "by hand", "a foreign disk was unmounted")
	n.fails["mountinfo"] = errInjected
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "injected")
}

func TestExpand(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	require.Contains(t, n.refused(t, "expandfs", options, disk, globalPath, "1", "1"), "not mounted")
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.takeDone()

	golden(t, "expandfs", n.ask(t, "expandfs", options, disk, globalPath, fmt.Sprint(101*gib+1), fmt.Sprint(100*gib)))
	require.Equal(t, []string{"rescan", "grow"}, words(n.takeDone()))
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	volume, err := ai.Volume()
	require.NoError(t, err)
	require.EqualValues(t, 102, volume.SizeGiB, "a size between two GiB is rounded up")

	golden(t, "expandvolume", n.ask(t, "expandvolume", options, globalPath, fmt.Sprint(200*gib), fmt.Sprint(102*gib)))
	n.ask(t, "expandvolume", options, globalPath, fmt.Sprint(150*gib), fmt.Sprint(102*gib)) // smaller than it is: nothing to do
	for _, size := range []string{"", "0", "-1", "3Gi", "999999999999999999999"} {
		require.Contains(t, n.refused(t, "expandfs", options, disk, globalPath, size, "1"), "number of bytes")
		require.Contains(t, n.refused(t, "expandvolume", options, globalPath, size, "1"), "number of bytes")
	}
}

func TestExpandWithoutCredentials(t *testing.T) {
	server := array(t)
	control := newNode(t, server, "control")
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", control.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.Config.Username = ""
	n.ask(t, "expandfs", options, disk, globalPath, fmt.Sprint(100*gib), "1") // large enough already
	n.fails["rescan"] = errors.New("the disk has 107374182400 bytes")
	message := n.refused(t, "expandfs", options, disk, globalPath, fmt.Sprint(101*gib), "1")
	require.Contains(t, message, "this node cannot grow it on the array")
	require.Contains(t, message, "no credentials")
}

func TestADiskIsTheVolumesWhateverTheCaseOfItsTargetsName(t *testing.T) {
	volume := iscsi.Target{IQN: "iqn.2013-05.com.daterainc:TC:01:sn:abc", LUN: 1, Serial: "s"}
	for name, test := range map[string]struct {
		disk iscsi.Target
		same bool
	}{
		"as the array spells it":   {volume, true},
		"as the session spells it": {iscsi.Target{IQN: "iqn.2013-05.com.daterainc:tc:01:sn:abc", LUN: 1, Serial: "s"}, true},
		"another target":           {iscsi.Target{IQN: "iqn.2013-05.com.daterainc:tc:01:sn:abd", LUN: 1, Serial: "s"}, false},
		"another LUN":              {iscsi.Target{IQN: volume.IQN, LUN: 2, Serial: "s"}, false},
		"a serial in other case":   {iscsi.Target{IQN: volume.IQN, LUN: 1, Serial: "S"}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.same, sameDisk(test.disk, volume)) })
	}
}
