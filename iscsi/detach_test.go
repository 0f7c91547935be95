package iscsi

import (
	"context"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// attached is a machine with the usual volume attached.
func attached(t *testing.T, portals ...Portal) (*machine, Target) {
	m := newMachine(t)
	target, _ := m.oneVolume(portals...)
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	m.programs()
	return m, target
}

func TestDetachStartsTwoProgramsAndNoneWhenAllIsGone(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Equal(t, []string{
		"iscsiadm -m node -T " + testIQN + " -p " + portalA + " --logout",
		"iscsiadm -m node -o delete -T " + testIQN,
	}, m.programs())
	m.nothingLeft()
	require.NoFileExists(t, m.path("dev/sda"))

	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Empty(t, m.programs())
}

func TestDetachNeedsNoPortals(t *testing.T) {
	t.Parallel()
	m, target := attached(t, portalA, portalB)
	target.Portals = nil
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Len(t, m.programs(), 3, "two logouts and one delete")
	m.nothingLeft()
}

func TestDetachFinishesWhatACrashLeft(t *testing.T) {
	for _, test := range []struct {
		name     string
		crash    func(m *machine)
		programs []string
	}{
		{"session without its disk", func(m *machine) { m.removeDisk(m.path("sys/devices/platform/host0/session11/target0:0:0/0:0:0:0")) },
			[]string{"--logout", "-o delete"}},
		{"record without a session", func(m *machine) { m.logoutSession("session11", "") }, []string{"-o delete"}},
		{"session without its record", func(m *machine) { m.deleteRecord() }, []string{"-m session -r 11 --logout"}},
		{"lost session", func(m *machine) { m.setState("session11", "FAILED") }, []string{"--logout", "-o delete"}},
		{"LUN that is not served any more", func(m *machine) {
			m.removeDisk(m.path("sys/devices/platform/host0/session11/target0:0:0/0:0:0:0"))
			s, _ := readSession(m.path("sys/class/iscsi_session/session11"))
			m.addUnserved(s, 0)
		}, []string{"--logout", "-o delete"}},
		{"empty record", func(m *machine) {
			m.logoutSession("session11", "")
			m.deleteRecord()
			m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "")
		}, nil},
		{"empty record in a directory of its portal", func(m *machine) {
			m.logoutSession("session11", "")
			m.deleteRecord()
			m.write("var/lib/iscsi/nodes/"+testIQN+"/10.0.0.1,3260,1/default", "")
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m, target := attached(t)
			test.crash(m)
			require.NoError(t, m.initiator().Detach(t.Context(), target))
			programs := m.programs()
			require.Len(t, programs, len(test.programs), "%q", programs)
			for n, part := range test.programs {
				require.Contains(t, programs[n], part)
			}
			m.nothingLeft()
			require.NoDirExists(t, m.path("var/lib/iscsi/nodes", testIQN))
		})
	}
}

// deleteRecord makes the record disappear behind everybody's back.
func (m *machine) deleteRecord() {
	delete(m.records, testIQN+"|"+portalA)
	m.remove("etc/iscsi/nodes/" + testIQN)
}

func TestDetachLeavesASessionThatServesOthers(t *testing.T) {
	t.Parallel()
	m, one := attached(t)
	m.targets[testIQN].luns[1] = fakeLUN{"second", gib}
	two := one
	two.LUN, two.Serial = 1, "second"
	i := m.initiator()
	_, err := i.Attach(t.Context(), two, CHAP{})
	require.NoError(t, err)

	require.NoError(t, i.Detach(t.Context(), one))
	require.Empty(t, m.programs())
	_, found, err := i.Find(t.Context(), two)
	require.NoError(t, err)
	require.True(t, found, "another volume's disk is gone")
	require.NotEmpty(t, i.records(testIQN))

	require.NoError(t, i.Detach(t.Context(), two))
	require.Len(t, m.programs(), 2)
	m.nothingLeft()
}

func TestDetachLeavesAnotherLUNThatIsNotServed(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	i := m.initiator()
	s, _, err := i.sessionAt(testIQN, portalA)
	require.NoError(t, err)
	other := m.addUnserved(s, 1)
	require.NoError(t, i.Detach(t.Context(), target))
	require.DirExists(t, other)
	require.Empty(t, m.programs())
}

// As with node.session.nr_sessions = 2 of an earlier login, or with a second interface.
func TestDetachEndsNoOtherSessionOfThePortal(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	m.targets[testIQN].luns[1] = fakeLUN{"second", gib}
	other, _ := readSession(m.path("sys/class/iscsi_session", m.addSession(testIQN, portalA, "LOGGED_IN")))
	m.addDisk(other, 1, fakeLUN{"second", gib})
	i := m.initiator()
	require.NoError(t, i.Detach(t.Context(), target))
	require.Equal(t, []string{"iscsiadm -m session -r 11 --logout"}, m.programs())
	_, found, err := i.Find(t.Context(), Target{IQN: testIQN, LUN: 1, Serial: "second"})
	require.NoError(t, err)
	require.True(t, found, "another volume's session was logged out")
}

func TestDetachLeavesADiskWithAnotherSerial(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	target.Serial = "another-volume"
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Empty(t, m.programs())
	require.FileExists(t, m.path("dev/sda"))
}

func TestDetachRefusesWhatIsInUse(t *testing.T) {
	for _, test := range []struct {
		name string
		use  func(m *machine)
		says string
	}{
		{"mounted", func(m *machine) { m.mount("sda", `/mnt/a\040b`) }, "/dev/sda is still in use: mounted on /mnt/a b"},
		{"mounted partition", func(m *machine) {
			m.write("sys/class/block/sda/sda1/partition", "1\n")
			m.write("sys/class/block/sda1/dev", "8:1\n")
			m.mount("sda1", "/mnt/a")
		}, "/dev/sda1 is still in use: mounted on /mnt/a"},
		{"held by LVM", func(m *machine) { m.mkdir("sys/class/block/sda/holders/dm-7") }, "dm-7 (see lsblk)"},
		{"mounted elsewhere", func(m *machine) {
			m.claim = func(device string) error { return &os.PathError{Op: "open", Path: device, Err: syscall.EBUSY} }
		}, "another mount namespace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m, target := attached(t)
			test.use(m)
			err := m.initiator().Detach(t.Context(), target)
			require.ErrorIs(t, err, ErrInUse)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, testSerial)
			require.Empty(t, m.programs())
			require.FileExists(t, m.path("dev/sda"))
		})
	}
}

func TestDetachRetriesALogoutThatIsTooEarly(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	tries := 0
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		if !slices.Contains(args, "--logout") {
			return "", false
		}
		tries++
		return "logout-login-under-way", tries < 3
	}
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Equal(t, 3, tries)
	m.nothingLeft()
}

func TestDetachDoesNotBelieveIscsiadm(t *testing.T) {
	t.Run("no such session by record, so by number", func(t *testing.T) {
		t.Parallel()
		m, target := attached(t)
		m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
			return "logout-again", slices.Contains(args, "--logout") && slices.Contains(args, "node")
		}
		require.NoError(t, m.initiator().Detach(t.Context(), target))
		require.Len(t, m.programs(), 3)
		m.nothingLeft()
	})
	t.Run("session logged out and still there", func(t *testing.T) {
		t.Parallel()
		m, target := attached(t)
		m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
			return "logout", slices.Contains(args, "--logout")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := m.initiator().Detach(ctx, target)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "session 11 ("+portalA+", LOGGED_IN)")
		require.NotEmpty(t, m.records, "the record of a session that is there was deleted")
	})
	t.Run("record deleted and still there", func(t *testing.T) {
		t.Parallel()
		for _, answer := range []string{"delete", "delete-again"} {
			m, target := attached(t)
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return answer, slices.Contains(args, "delete")
			}
			require.ErrorContains(t, m.initiator().Detach(t.Context(), target), "delete the node records of "+testIQN)
		}
	})
	t.Run("logout that fails", func(t *testing.T) {
		t.Parallel()
		m, target := attached(t)
		m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
			return "login-no-daemon", slices.Contains(args, "--logout")
		}
		require.ErrorIs(t, m.initiator().Detach(t.Context(), target), ErrNoDaemon)
		require.Len(t, m.programs(), 1)
	})
}

func TestDetachIsBoundedWhenTheTargetHangs(t *testing.T) {
	for _, name := range []string{"flush", "delete", "claim"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, target := attached(t)
			i := m.initiator()
			ctx, timeIsUp := context.WithCancel(t.Context())
			defer timeIsUp()
			over := make(chan struct{})
			defer close(over)
			hang := func() error { timeIsUp(); <-over; return nil }
			switch name {
			case "flush":
				i.flush = func(string) error { return hang() }
			case "delete":
				i.delete = func(disk) error { return hang() }
			case "claim":
				m.claim = func(string) error { return hang() }
			}
			err := i.Detach(ctx, target)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, m.programs(), "logged out although the disk is there")
			s, _, err := i.sessionAt(testIQN, portalA)
			require.NoError(t, err)
			if name != "claim" {
				require.Equal(t, "5", attribute(s.class, "recovery_tmo"), "the kernel waits its long time for the target")
			}
		})
	}
}

func TestDetachGoesOnWhenTheDiskCannotBeFlushed(t *testing.T) {
	t.Parallel()
	m, target := attached(t)
	i := m.initiator()
	i.flush = func(string) error { return syscall.EIO }
	require.NoError(t, i.Detach(t.Context(), target))
	m.nothingLeft()
}
