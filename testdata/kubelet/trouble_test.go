package kubelet

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

func run(t *testing.T, command ...string) {
	t.Helper()
	output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	require.NoError(t, err, "%s: %s", strings.Join(command, " "), output)
}

// kubelet in a container has its directory as a shared mount of its own, and other
// containers get what is mounted there: they must lose it, too, or the disk stays busy.
func TestNodePropagation(t *testing.T) {
	k, pv := newNode(t, driver.AttachController), small(t)
	run(t, "mkdir", "-p", kubeletRoot)
	run(t, "mount", "--bind", kubeletRoot, kubeletRoot)
	t.Cleanup(func() { run(t, "umount", kubeletRoot) })
	container := exec.Command("unshare", "--mount", "--propagation", "slave", "sleep", "600")
	require.NoError(t, container.Start())
	t.Cleanup(func() {
		require.NoError(t, container.Process.Kill())
		_ = container.Wait()
	})
	seen := func() []string { return mountsOf(t, strconv.Itoa(container.Process.Pid)) }

	k.stage(pv, k.attach(pv, nodeA))
	require.NoError(t, k.setUp(pv, web0))
	require.Contains(t, seen(), k.podPath(pv, web0))
	k.tearDown(pv, web0)
	k.unstage(pv)
	require.Empty(t, seen(), "left in a container")
	k.detach(pv, nodeA)
}

// losePortals lets all packets to the array's portals vanish, until the returned function is called.
func losePortals(t *testing.T) (find func()) {
	t.Helper()
	portals := map[string]string{"10.9.0.1": "lan0", "10.9.1.1": "lan1"}
	for address, lan := range portals {
		run(t, "ip", "neigh", "replace", address, "lladdr", "02:00:00:00:00:fe", "dev", lan, "nud", "permanent")
	}
	return func() {
		for address, lan := range portals {
			run(t, "ip", "neigh", "del", address, "dev", lan)
		}
	}
}

// kubelet ends a WaitForAttach that takes too long. The driver answers in time, and why.
func TestNodeWaitForAttachTakesTooLong(t *testing.T) {
	k, pv := newNode(t, driver.AttachController), small(t)
	device := k.attach(pv, nodeA)
	find := losePortals(t)
	begin := time.Now()
	_, err := k.attacher(pv).WaitForAttach(pv, device, web0, time.Second)
	require.Less(t, time.Since(begin), 10*time.Second, "kubelet panics when the driver lives ten seconds longer")
	requireFailure(t, err, "waitforattach", "terminated signal received")
	find()
	require.Empty(t, leftOnNode(t), "left of a login that was ended")
	k.stage(pv, device)
	k.unstage(pv)
	k.detach(pv, nodeA)
}

// A pod that is deleted before its volume is mounted: kubelet sees no mount, and calls
// nothing but Detach.
func TestNodePodIsDeletedEarly(t *testing.T) {
	k, pv := newNode(t, driver.AttachKubelet), small(t)
	_, err := k.attacher(pv).WaitForAttach(pv, k.attach(pv, nodeA), web0, waitTime)
	require.NoError(t, err)
	k.unstage(pv)
	require.NotEmpty(t, leftOnNode(t), "kubelet calls unmountdevice by now; the driver need not do it in detach")
	k.detach(pv, nodeA)
}
