package driver

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/mount"
)

// stage attaches and mounts the seed's volume up to the global path.
func (n *node) stage(t *testing.T, options string) (disk string) {
	t.Helper()
	disk = n.ask(t, "waitforattach", n.ask(t, "attach", options, n.name).Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	return disk
}

func TestKubeletsFolderMayBeASymbolicLink(t *testing.T) {
	linked := func(path string) string { return strings.Replace(path, kubeletRoot, kubeletLink, 1) }
	for _, mode := range []AttachMode{AttachKubelet, AttachNone} {
		t.Run(string(mode), func(t *testing.T) {
			n := newNode(t, array(t), "node-a", attachMode(mode))
			if mode == AttachKubelet {
				disk := n.ask(t, "waitforattach", n.ask(t, "attach", optionsWith(nil), "node-a").Device, optionsWith(nil)).Device
				n.ask(t, "mountdevice", linked(globalPath), disk, optionsWith(nil))
			}
			n.ask(t, "mount", linked(podPath), optionsWith(nil))
			n.ask(t, "unmount", linked(podPath))
			if mode == AttachKubelet {
				n.ask(t, "unmountdevice", linked(globalPath))
			}
			require.Empty(t, n.disks, "the volume stays on the node for ever")
			require.Empty(t, n.mounts)
		})
	}
}

// Somebody logged out by hand, or restarted iscsid: the disk is gone, the mount is not.
func TestUnmountDeviceAfterTheDiskIsGone(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	disk := n.stage(t, optionsWith(nil))
	delete(n.disks, disk)
	n.ask(t, "unmountdevice", globalPath)
	require.Empty(t, n.mounts)
	require.NoFileExists(t, n.journal().inUse("pv-datera-0"))
}

func TestUnmountDeviceLeavesAForeignFileSystemAlone(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	n.stage(t, optionsWith(nil))
	n.mounts[0].Device = "/dev/sda1"
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "by hand")
	require.Len(t, n.mounts, 1)
	require.NotEmpty(t, n.disks, "the volume was logged out because of somebody else's file system")
}

func TestFailedLoginWhoseUndoFailsIsFinishedLater(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
	n.fails["login"], n.fails["released"] = errInjected, errors.New("still busy")
	attachment, err := ParseAttachment(device)
	require.NoError(t, err)
	n.sessions[attachment.Target.IQN], n.disks["/dev/sdx"] = true, foundDisk("/dev/sdx", attachment)
	n.hides = true // as a disk that appears after the login has failed
	n.refused(t, "waitforattach", device, optionsWith(nil))
	require.Equal(t, []string{"pv-datera-0"}, n.journal().unfinished())
	n.fails = map[string]error{}
	n.hides = false
	n.ask(t, "unmount", podPath)
	require.Empty(t, n.disks)
}

func TestRemovalDoesNotTakeTheDiskOfARecreatedVolume(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	n.stage(t, optionsWith(nil))
	n.fails["logout"] = errInjected
	n.refused(t, "unmountdevice", globalPath)
	n.ask(t, "detach", "pv-datera-0", "node-a")
	delete(n.fails, "logout")
	// The claim is made anew: another name, the same volume on the array.
	again := optionsWith(map[string]string{keyName: "pv-again"})
	device := n.ask(t, "attach", again, "node-a").Device
	disk := n.ask(t, "waitforattach", device, again).Device
	require.Contains(t, n.disks, disk, "the call answered with a disk that it had just removed")
	n.ask(t, "unmount", podPath) // any call that sweeps
	require.Contains(t, n.disks, disk)
	require.Empty(t, n.journal().unfinished())
}

func TestModeNoneKeepsVolumesOfOneNameApart(t *testing.T) {
	server := array(t)
	_, err := server.Do("/root", "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	n.ask(t, "mount", otherPod, optionsWith(map[string]string{optTenant: "dev"}))
	require.Len(t, n.disks, 2, "a pod got the volume of another tenant")
}

func TestModeNoneChecksTheCredentialsOfEveryPod(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	wrong := optionsWith(map[string]string{keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("wrong"),
		optServer: "sim.test"})
	n.refused(t, "mount", otherPod, wrong)
	require.Len(t, n.mounts, 2, "a pod with a wrong password got the volume")
}

func TestModeNoneUndoesAFailedBind(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.fails["bind"] = mount.ErrOccupied
	require.Contains(t, n.refused(t, "mount", podPath, optionsWith(nil)), "something else is mounted there, or delete the pod")
	require.Empty(t, n.mounts, "kubelet calls no unmount for it")
	require.Empty(t, n.disks)
	other := newNode(t, server, "node-b", attachMode(AttachNone))
	other.content = n.content
	other.ask(t, "mount", podPath, optionsWith(nil))
}

func TestModeNoneFinishesWhatAKilledMountLeft(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	// As if the call had been killed between mount and bind.
	n.mounts = n.mounts[:1]
	n.ask(t, "mount", otherPod, optionsWith(map[string]string{optVolumeID: "another"}))
	require.Len(t, n.disks, 1, "the volume without a pod stays for ever")
}

func TestModeNoneFinishesACutOffUnmount(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	n.fails["logout"] = errInjected
	n.refused(t, "unmount", podPath)
	n.fails = map[string]error{}
	n.Config.Attach = AttachKubelet // whose sweep looks at begun removals only
	n.ask(t, "unmount", otherPod)
	require.Empty(t, n.disks)
	require.Empty(t, n.journal().unfinished())
}

func TestModeNoneRemovesItsClaimLaterWhenTheArrayIsDown(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	require.NoError(t, server.SetFault(dateratest.Fault{Name: dateratest.Cut, Value: "0"}))
	n.ask(t, "unmount", podPath) // the pod can be deleted
	require.Empty(t, n.disks)
	require.Empty(t, n.mounts)
	require.Len(t, n.journal().unfinished(), 1)
	server.ClearFaults()
	n.ask(t, "unmount", otherPod)
	require.Empty(t, n.journal().unfinished())
	require.Empty(t, letIn(t, server, "kube-pv-datera-0"), "the claim stays")
}

func TestModeNoneRemovesItsDirectoryLaterWhenItCannotNow(t *testing.T) {
	for name, test := range map[string]struct {
		fails error
		stays bool // in the journal
	}{
		"a disk that fails":      {errInjected, true},
		"somebody's files there": {fmt.Errorf("remove: %w", mount.ErrHasContent), false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, array(t), "node-a", attachMode(AttachNone))
			n.ask(t, "mount", podPath, optionsWith(nil))
			n.fails["rmdir"] = test.fails
			n.ask(t, "unmount", podPath)
			require.Equal(t, test.stays, len(n.journal().unfinished()) == 1)
			delete(n.fails, "rmdir")
			n.removed = nil
			n.ask(t, "unmount", podPath) // any call that sweeps
			require.Empty(t, n.journal().unfinished())
			require.Equal(t, test.stays, len(n.removed) == 1, "%s", n.removed)
		})
	}
}

func TestModeNoneServesManyPodsAtOnce(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachNone))
	path := func(i int) string { return strings.Replace(podPath, "11111111", fmt.Sprintf("%08d", i), 1) }
	each := func(verb string, args ...string) {
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				reply := n.Serve(t.Context(), append([]string{verb, path(i)}, args...))
				require.Equal(t, Success, reply.Status, reply.Message)
			})
		}
		group.Wait()
	}
	each("mount", optionsWith(nil))
	require.Len(t, n.mounts, 9)
	each("unmount")
	require.Empty(t, n.mounts)
	require.Empty(t, n.disks)
}

func TestModeNoneNotesOnTheArrayThatItHasFormatted(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	n.ask(t, "unmount", podPath)
	n.content = map[string]mount.Content{} // the disk reads blank, though it must not
	require.Contains(t, n.refused(t, "mount", podPath, optionsWith(nil)), "the array says that there is data")
}

// kubelet does not ask again: the call itself waits for a container that ends late.
func TestUnmountDeviceWaitsForWhoStillHasTheDisk(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachKubelet))
	n.stage(t, optionsWith(nil))
	n.held = 3
	n.ask(t, "unmountdevice", globalPath)
	require.Empty(t, n.disks)
	require.Empty(t, n.journal().unfinished())
}
