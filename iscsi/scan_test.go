package iscsi

import (
	"testing"
	"testing/synctest"

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
