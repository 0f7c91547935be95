package driver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// Whoever meets a refusal to format at night is told what was found, where, and how to go on.
func TestEveryRefusalToFormatSaysHowToGoOn(t *testing.T) {
	blank := mount.Content{Blank: true}
	tests := map[string]struct {
		content mount.Content
		change  func(t *testing.T, n *node, disk string)
		says    []string
	}{
		"the first superblock is destroyed": {
			mount.Content{Filesystem: "xfs", Damaged: true, Detail: "xfs superblock at offset 5368709120; the primary superblock at the beginning of the device is destroyed"}, nil,
			[]string{"damaged xfs", "offset 5368709120", "xfs_repair", "on a clone of it first"},
		},
		"mkfs was cut off": {
			mount.Content{Filesystem: "xfs", Damaged: true, Detail: "xfs superblock at offset 0, unusable: mkfs.xfs did not come to its end"}, nil,
			[]string{"did not come to its end", "delete the volume on the array and let it be made anew"},
		},
		"another file system": {
			mount.Content{Filesystem: "ext4", Detail: "ext4 superblock at offset 1024"}, nil,
			[]string{"holds ext4 (ext4 superblock at offset 1024), not xfs", "correct fsType, or use another volume"},
		},
		"bytes of nobody": {
			mount.Content{Detail: "non-zero bytes (0x64) at offset 307200, of no file system that is known here"}, nil,
			[]string{"offset 307200", "blkid -p /dev/sdb", "delete the volume on the array"},
		},
		"a disk that cannot be read": {
			blank, func(_ *testing.T, n *node, _ string) {
				n.fails["inspect"] = errors.New("inspect /dev/sdb: the device could not be read at offset 0: input/output error")
			},
			[]string{"offset 0: input/output error", "dmesg", "the next try goes on"},
		},
		"the array knows of data": {
			blank, func(t *testing.T, n *node, _ string) {
				r, found := n.journal().read("pv-datera-0")
				require.True(t, found)
				r.Device += "&format=never"
				require.NoError(t, n.journal().write("pv-datera-0", r))
			},
			[]string{"the array says that there is data", "check the volume on the array"},
		},
		"another volume's disk": {
			blank, func(_ *testing.T, n *node, disk string) {
				other := n.disks[disk]
				other.Target.Serial = "another-volume"
				n.disks[disk] = other
			},
			[]string{"serial another-volume, not this volume's", "it is left alone", "delete the pod"},
		},
		"no iSCSI disk": {
			blank, func(_ *testing.T, n *node, disk string) { n.disks = map[string]iscsi.Device{} },
			[]string{"/dev/sdb", "expected is the disk of target iqn."},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, array(t), "node-a", inMemory(t)).registered(t)
			device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
			attachment, err := ParseAttachment(device)
			require.NoError(t, err)
			n.content[attachment.Target.Serial] = test.content
			disk := n.ask(t, "waitforattach", device, optionsWith(nil)).Device
			if test.change != nil {
				test.change(t, n, disk)
			}
			message := n.refused(t, "mountdevice", globalPath, disk, optionsWith(nil))
			for _, words := range append(test.says, disk) {
				require.Contains(t, message, words)
			}
			require.Equal(t, []string{"login"}, words(n.takeDone()), "the disk was touched")
		})
	}
}

// A disk that is smaller or larger than the array says may be another one.
func TestFormatDemandsTheSizeThatTheArrayNames(t *testing.T) {
	n := newNode(t, array(t), "node-a", inMemory(t)).registered(t)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", optionsWith(nil), "node-a").Device, optionsWith(nil)).Device
	n.ask(t, "mountdevice", globalPath, disk, optionsWith(nil))
	require.Equal(t, "mkfs.xfs /dev/sdb 107374182400", n.takeDone()[1], "mkfs is not told which size the disk must have")
}

// A mount that fails never leads to mkfs: not of a file system that was there, and not of one that was just made.
func TestFailedMountNeverLeadsToMkfs(t *testing.T) {
	for name, formatted := range map[string]bool{"a file system that was there": true, "one that was just made": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, array(t), "node-a", inMemory(t)).registered(t)
			device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
			attachment, err := ParseAttachment(device)
			require.NoError(t, err)
			expected := 1
			if formatted {
				n.content[attachment.Target.Serial] = mount.Content{Filesystem: "xfs"}
				expected = 0
			}
			disk := n.ask(t, "waitforattach", device, optionsWith(nil)).Device
			n.fails["mount"] = errors.New("wrong fs type, bad option, bad superblock")
			for range 5 { // as kubelet tries
				require.Contains(t, n.refused(t, "mountdevice", globalPath, disk, optionsWith(nil)), "bad superblock")
			}
			require.Equal(t, expected, strings.Count(strings.Join(words(n.takeDone()), " "), "mkfs"))
		})
	}
}

// What the mounter finds when it looks last leads on to the same remedy.
func TestADiskThatIsBlankNoMoreIsRefusedLikeOneThatNeverWas(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	n.fails["mkfs.xfs"] = fmt.Errorf("make xfs on /dev/sdb: %w: non-zero bytes at offset 0", mount.ErrNotBlank)
	device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
	disk := n.ask(t, "waitforattach", device, optionsWith(nil)).Device
	message := n.refused(t, "mountdevice", globalPath, disk, optionsWith(nil))
	require.Contains(t, message, "not blank: non-zero bytes at offset 0; if it is certain that nothing on it is needed, delete the volume on the array and let it be made anew")
	// A volume of the provisioner is not made a second time.
	require.Contains(t, startAnew(Volume{Provisioned: true}), "make a new claim")
}
