package iscsi

import (
	"context"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestScanFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(m *machine, i *Initiator, target *Target)
		is     error
		says   string
	}{
		"when the sessions ended": {func(m *machine, _ *Initiator, _ *Target) {
			m.logoutSession(m.sessionAt(testIQN, portalA), "")
			m.logoutSession(m.sessionAt(testIQN, portalB), "")
		}, ErrNoSession, "portal " + portalB + ": no live session"},
		"when the sessions are lost": {func(m *machine, _ *Initiator, _ *Target) {
			m.setState(m.sessionAt(testIQN, portalA), "FAILED")
			m.setState(m.sessionAt(testIQN, portalB), "FAILED")
		}, ErrNoSession, "FAILED"},
		"without the LUN":        {func(_ *machine, _ *Initiator, target *Target) { target.LUN = 7 }, nil, "the target shows no such LUN"},
		"with another's disk":    {func(_ *machine, _ *Initiator, target *Target) { target.Serial = "expected-one" }, ErrWrongSerial, "expected-one"},
		"of a target that hangs": {func(_ *machine, i *Initiator, _ *Target) { i.scan = func(string, string) error { return errFake } }, errFake, "scan LUN 0 by session"},
		"without a portal":       {func(_ *machine, _ *Initiator, target *Target) { target.Portals = nil }, nil, "has no portal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				target, _ := m.oneVolume(portalA, portalB)
				i := m.initiator()
				require.NoError(t, i.Login(t.Context(), target, CHAP{}))
				m.programs()
				test.change(m, i, &target)
				_, err := i.Scan(t.Context(), target)
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, target.IQN)
				if test.is != nil {
					require.ErrorIs(t, err, test.is)
				}
				require.Empty(t, m.programs())
				require.Empty(t, m.disks(), "SCSI devices that a failed scan brought")
				require.NoError(t, i.Detach(t.Context(), target))
				m.nothingLeft()
			})
		})
	}
}

func TestScanLeavesAStaleDiskThatIsInUse(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	m.mount("sda", "/mnt/a")
	target.Serial = "next-volume"
	_, err := m.initiator().Scan(t.Context(), target)
	require.ErrorIs(t, err, ErrWrongSerial)
	require.ErrorIs(t, err, ErrInUse)
	require.FileExists(t, m.path("dev/sda"))
}

func TestScanGoesOnWithTheSessionThatIsLeft(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	i := m.initiator()
	require.NoError(t, i.Login(t.Context(), target, CHAP{}))
	m.programs()
	m.setState(m.sessionAt(testIQN, portalA), "FAILED")
	device, err := i.Scan(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, []Portal{portalB}, device.Target.Portals)
	require.Empty(t, m.programs())
}

func TestAttachReplacesAStaleDiskOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, fake := m.oneVolume()
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	m.programs()
	fake.luns[0] = fakeLUN{"next-volume", 2 * gib}
	next := target
	next.Serial = "next-volume"

	m.mount("sda", "/mnt/in use")
	_, err = m.initiator().Attach(t.Context(), next, CHAP{})
	require.ErrorIs(t, err, ErrWrongSerial)
	require.ErrorIs(t, err, ErrInUse, "a stale disk that is mounted must stay")
	require.FileExists(t, m.path("dev/sda"))

	m.write("proc/self/mountinfo", "")
	device, err := m.initiator().Attach(t.Context(), next, CHAP{})
	require.NoError(t, err)
	require.Equal(t, m.path("dev/sdb"), device.Path)
	require.Equal(t, 2*gib, device.Bytes)
	require.NoFileExists(t, m.path("dev/sda"))
	require.Empty(t, m.programs())
}

func TestAttachReplacesADiskThatTheKernelGaveUp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	m.write("sys/class/block/sda/device/state", "offline\n")
	device, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, m.path("dev/sdb"), device.Path)
}

func TestAttachSaysThatADiskIsBlocked(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	m.write("sys/class/block/sda/device/state", "blocked\n")
	i := m.initiator()
	i.opt.DiskTimeout = 100 * time.Millisecond
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.ErrorContains(t, err, "portal "+portalA+": sda (")
	require.ErrorContains(t, err, "is blocked and takes no I/O: look at dmesg and the network to the portal")
}

func TestABlockedWriteToSysfsDoesNotOutliveTheContext(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	hang := make(chan struct{})
	defer close(hang)
	i.scan = func(string, string) error { <-hang; return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := i.Attach(ctx, target, CHAP{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	m.nothingLeft()
}

func TestAttachAsksAnewForALUNThatWasNotServed(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	i := m.initiator()
	i.opt.DiskTimeout = 100 * time.Millisecond
	s, _, err := i.sessionAt(testIQN, portalA)
	require.NoError(t, err)
	m.removeDisk(s.disks()[0].dir)
	unserved := m.addUnserved(s, 0)
	_, err = i.Attach(t.Context(), target, CHAP{})
	require.ErrorContains(t, err, "SCSI device 0:0:0:0 has no disk: the target knows the LUN and does not serve it")
	require.NoDirExists(t, unserved)
	device, err := i.Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, m.path("dev/sdb"), device.Path)
	require.Empty(t, m.programs())
}

func TestAttachTellsATargetThatDoesNotAnswerTheScanFromOneWithoutTheLUN(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	i.opt.DiskTimeout = 100 * time.Millisecond
	hang := make(chan struct{})
	defer close(hang)
	i.scan = func(string, string) error { <-hang; return nil }
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.ErrorContains(t, err, "the target did not answer the scan for the LUN within 100ms")
	require.NotContains(t, err.Error(), "no such LUN")
	m.nothingLeft()
}

func TestAttachReportsAScanThatFails(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	i.scan = func(string, string) error { return &os.PathError{Op: "write", Path: "scan", Err: syscall.EINVAL} }
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "scan LUN 0 by session")
	m.nothingLeft()
}
