package iscsi

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What must not be touched: sessions, disks and LUNs of other volumes, and one's own when only time has run out.

// A target has LUNs of others, too. Only the one that is asked for comes to this machine.
func realOtherLUNs(t *testing.T) {
	target, tid := realTarget(t)
	realLUN(t, tid, 2, "somebody-else")
	realLUN(t, tid, 3, "and-another")
	i, _ := realInitiator(t, nil)
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	sessions, err := i.sessions(target.IQN)
	require.NoError(t, err)
	require.Len(t, sessions, 1)
	var luns []int
	for _, d := range sessions[0].disks() {
		if d.name != "" {
			luns = append(luns, d.lun)
		}
	}
	require.Equal(t, []int{target.LUN}, luns, "the login brought other LUNs")
	require.NoError(t, i.Detach(realContext(t), target))
	nothingLeft(t, i, target)
}

func TestASlowRescanEndsNoSession(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	i := m.initiator()
	hang := make(chan struct{})
	defer close(hang)
	i.rescan = func(disk) error { <-hang; return nil }
	device, found, err := i.Find(t.Context(), target)
	require.NoError(t, err)
	require.True(t, found)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = i.Resize(ctx, device, 2*gib)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, m.programs(), "a slow target was logged out")
	_, found, err = i.Find(t.Context(), target)
	require.NoError(t, err)
	require.True(t, found)
}

func TestResizeAsksNoOtherTarget(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	other := Target{Portals: target.Portals, IQN: testIQN + "-other", LUN: 0, Serial: "other"}
	m.targets[other.IQN] = &fakeTarget{portals: target.Portals, luns: map[int]fakeLUN{0: {other.Serial, gib}}}
	i := m.initiator()
	_, err := i.Attach(t.Context(), other, CHAP{})
	require.NoError(t, err)
	m.programs()
	i.rescan = func(d disk) error {
		if d.session.iqn != target.IQN {
			return errors.New("another volume's disk was rescanned, and hangs")
		}
		return m.rescan(d)
	}
	device, _, err := i.Find(t.Context(), target)
	require.NoError(t, err)
	m.targets[testIQN].luns[0] = fakeLUN{testSerial, 2 * gib}
	bytes, err := i.Resize(t.Context(), device, 2*gib)
	require.NoError(t, err)
	require.Equal(t, 2*gib, bytes)
	require.Empty(t, m.programs(), "iscsiadm rescans all sessions")
}

// Another disk stands under the expected name: the name's serial number would be right, and what is opened is not it.
func TestIdentifyLooksWhereANodeLeads(t *testing.T) {
	t.Parallel()
	m, _ := attached(t)
	i := m.initiator()
	for number, says := range map[string]string{"8:0": "", "8:16": "the node has number 8:16, and the kernel's sda has 8:0"} {
		m.remove("dev/sda")
		var major, minor uint32
		_, err := fmt.Sscanf(number, "%d:%d", &major, &minor)
		require.NoError(t, err)
		if err := unix.Mknod(m.path("dev/sda"), unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); errors.Is(err, unix.EPERM) {
			t.Skip("only root may make device nodes")
		}
		_, err = i.Identify(m.path("dev/sda"))
		if says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, says)
		}
	}
}
