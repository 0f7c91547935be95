package iscsi

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// disks are those of all the machine's sessions.
func (m *machine) disks() []string {
	found, err := filepath.Glob(m.path("sys/devices/platform/host*/session*/target*/*"))
	m.check(err)
	return found
}

func TestLoginScansNothingAndScanLogsInNowhere(t *testing.T) {
	t.Parallel()
	for name, portals := range map[string][]Portal{"one portal": {portalA}, "two portals": {portalA, portalB}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			target, fake := m.oneVolume(portals...)
			fake.luns[7] = fakeLUN{"another-volume", gib}
			i := m.initiator()
			in, err := i.LoggedIn(target)
			require.NoError(t, err)
			require.False(t, in)

			for _, programs := range []int{3 * len(portals), 0} {
				require.NoError(t, i.Login(t.Context(), target, CHAP{}))
				require.Len(t, m.programs(), programs, "programs of a login, and of its repetition")
				require.Empty(t, m.scanned)
				require.Empty(t, m.disks(), "a login brought a SCSI device")
			}
			in, err = i.LoggedIn(target)
			require.NoError(t, err)
			require.True(t, in)
			_, found, err := i.Find(t.Context(), target)
			require.NoError(t, err)
			require.False(t, found)

			device, err := i.Scan(t.Context(), target)
			require.NoError(t, err)
			require.Len(t, device.Paths, len(portals))
			require.ElementsMatch(t, portals, device.Target.Portals)
			require.Len(t, m.disks(), len(portals), "a LUN that was not asked for")
			for range 2 {
				again, err := i.Scan(t.Context(), target)
				require.NoError(t, err)
				require.Equal(t, device, again)
				again, err = i.Attach(t.Context(), target, CHAP{})
				require.NoError(t, err)
				require.Equal(t, device, again)
			}
			require.Len(t, m.scanned, len(portals), "scans for a disk that is there")
			require.Empty(t, m.programs(), "programs after the login")

			require.NoError(t, i.Login(t.Context(), target, CHAP{}))
			require.Len(t, m.disks(), len(portals), "a login takes no disk away")
			require.NoError(t, i.Detach(t.Context(), target))
			m.nothingLeft()
		})
	}
}

func TestAttachAfterLoginOnlyScans(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	require.NoError(t, m.initiator().Login(t.Context(), target, CHAP{"node", "secret", "", ""}))
	m.programs()
	device, err := m.initiator().Attach(t.Context(), target, CHAP{"node", "secret", "", ""})
	require.NoError(t, err)
	require.Len(t, device.Paths, 2)
	require.Empty(t, m.programs())
}

func TestDetachAfterLoginLeavesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	require.NoError(t, m.initiator().Login(t.Context(), target, CHAP{}))
	m.programs()
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Len(t, m.programs(), 3, "two logouts and one delete")
	m.nothingLeft()
}

func TestDetachEndsTheSessionOfALoginThatWasUnderWay(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	require.NoError(t, m.initiator().Login(t.Context(), target, CHAP{}))
	m.logoutSession(m.sessionAt(testIQN, portalB), "")
	m.programs()
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		if slices.Contains(args, "delete") && len(m.ran) == 2 { // iscsid has come to its end with what a killed call began
			m.addSession(testIQN, portalB, loggedIn)
		}
		return "", false
	}
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	require.Len(t, m.programs(), 4, "logout and delete, twice")
	m.nothingLeft()
}

func TestLoginTellsEachPortalsCauseAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change   func(m *machine, target *Target, fake *fakeTarget)
		is       error
		says     []string
		programs int
	}{
		"refused by the access list": {func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-refused-by-access-list" },
			ErrRefused, []string{"exit 19", "access list"}, 4},
		"wrong CHAP": {func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-wrong-chap" },
			ErrRefused, []string{"exit 24", "CHAP"}, 4},
		"dead portals": {func(_ *machine, target *Target, _ *fakeTarget) {
			target.Portals = []Portal{"10.0.0.9:3260", "203.0.113.1:3260"}
		}, ErrUnreachable, []string{"portal 10.0.0.9:3260: portal does not answer", "portal 203.0.113.1:3260: ", "within 1s"}, 0},
		"no iscsid": {func(m *machine, _ *Target, _ *fakeTarget) { m.write("proc/net/unix", "") },
			ErrNoDaemon, []string{"systemctl enable --now iscsid"}, 0},
		"login that made no session": {func(m *machine, _ *Target, _ *fakeTarget) {
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return "login", slices.Contains(args, "--login")
			}
		}, nil, []string{"the kernel has no such session"}, 4},
		"open-iscsi that knows no manual scan": {func(m *machine, _ *Target, _ *fakeTarget) {
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return "update-bad-name", slices.Contains(args, "update")
			}
		}, nil, []string{"configure the node record", "Invalid param name"}, 3},
		"no portal":     {func(_ *machine, target *Target, _ *fakeTarget) { target.Portals = nil }, nil, []string{"has no portal"}, 0},
		"no serial":     {func(_ *machine, target *Target, _ *fakeTarget) { target.Serial = "" }, nil, []string{"no serial number"}, 0},
		"unusable name": {func(_ *machine, target *Target, _ *fakeTarget) { target.IQN = "../x" }, nil, []string{"no iSCSI name"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				target, fake := m.oneVolume()
				test.change(m, &target, fake)
				err := m.initiator().Login(t.Context(), target, CHAP{Username: "node", Password: "canary-secret"})
				require.Error(t, err)
				if test.is != nil {
					require.ErrorIs(t, err, test.is)
				}
				for _, text := range append(test.says, target.IQN) {
					require.ErrorContains(t, err, text)
				}
				require.NotContains(t, err.Error(), "canary-secret")
				require.Len(t, m.programs(), test.programs)
				m.nothingLeft()
			})
		})
	}
}

func TestLoginGoesOnWithoutDeadAndLatePortals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		target, _ := m.oneVolume(portalA, portalB)
		target.Portals = append(target.Portals, "10.0.0.9:3260", "203.0.113.1:3260")
		m.fault = func(ctx context.Context, _ string, args []string) (string, bool) {
			if slices.Contains(args, "--login") && slices.Contains(args, portalB) {
				<-ctx.Done()
				return "", true
			}
			return "", false
		}
		i := m.initiator()
		i.opt.LoginTimeout = time.Hour
		began := time.Now()
		require.NoError(t, i.Login(t.Context(), target, CHAP{}))
		require.Less(t, time.Since(began), i.opt.JoinGrace+time.Second)
		require.Empty(t, m.disks())
		m.programs()
		device, err := i.Scan(t.Context(), target)
		require.NoError(t, err)
		require.Equal(t, []Portal{portalA}, device.Target.Portals)
		require.Empty(t, m.programs())
	})
}

func TestLoginLeavesASessionOfOthersAsItIs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, fake := m.oneVolume()
	name := m.addSession(testIQN, portalA, "LOGGED_IN")
	s, found := readSession(m.path("sys/class/iscsi_session", name))
	require.True(t, found)
	m.addDisk(s, 0, fake.luns[0])
	i := m.initiator()
	require.NoError(t, i.Login(t.Context(), target, CHAP{}))
	require.Empty(t, m.programs())
	require.Empty(t, m.scanned)
	require.Len(t, m.disks(), 1)
}

func TestLoginIsTheOnlyOneThatRevivesALostSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		target, _ := m.oneVolume()
		i := m.initiator()
		require.NoError(t, i.Login(t.Context(), target, CHAP{}))
		m.programs()
		m.setState(m.sessionAt(testIQN, portalA), "FAILED")
		_, err := i.Scan(t.Context(), target)
		require.ErrorIs(t, err, ErrNoSession)
		require.ErrorContains(t, err, "FAILED")
		require.Empty(t, m.programs())
		require.NoError(t, i.Login(t.Context(), target, CHAP{}))
		require.Len(t, m.programs(), 4, "logout, and a new session")
		require.Empty(t, m.disks())
	})
}

func TestLoggedIn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(m *machine, session string)
		in     bool
		fails  bool
	}{
		"a live session":               {func(*machine, string) {}, true, false},
		"a lost session":               {func(m *machine, session string) { m.setState(session, "FAILED") }, false, false},
		"a session that is being made": {func(m *machine, session string) { m.setState(session, "FREE") }, false, false},
		"a session that ended":         {func(m *machine, session string) { m.logoutSession(session, "") }, false, false},
		"no kernel modules":            {func(m *machine, _ string) { m.remove("sys/class/iscsi_session") }, false, false},
		"a session with another portal": {func(m *machine, session string) {
			m.logoutSession(session, "")
			m.addSession(testIQN, portalB, loggedIn)
		}, false, false},
		"a session with another target": {func(m *machine, session string) {
			m.logoutSession(session, "")
			m.addSession(testIQN+"x", portalA, loggedIn)
		}, false, false},
		"one of two sessions is lost": {func(m *machine, session string) { m.setState(m.addSession(testIQN, portalA, loggedIn), "FAILED") }, true, false},
		"a session list that cannot be read": {func(m *machine, _ string) {
			m.remove("sys/class/iscsi_session")
			m.write("sys/class/iscsi_session", "")
		}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			target, _ := m.oneVolume()
			i := m.initiator()
			require.NoError(t, i.Login(t.Context(), target, CHAP{}))
			m.programs()
			test.change(m, m.sessionAt(testIQN, portalA))
			in, err := i.LoggedIn(target)
			require.Equal(t, test.fails, err != nil, err)
			require.Equal(t, test.in, in)
			require.Empty(t, m.programs())
		})
	}
	_, err := newMachine(t).initiator().LoggedIn(Target{})
	require.Error(t, err)
}

// What a killed Login left: Login goes on from there, Scan brings the disk, and Detach takes all of it away.
func TestLoginAfterAKilledOne(t *testing.T) {
	t.Parallel()
	record := func(m *machine, portal Portal, settings map[string]string) {
		m.write(strings.TrimPrefix(m.recordPath(testIQN, portal), m.root), m.newRecord)
		m.records[testIQN+"|"+portal] = settings
	}
	manual := map[string]string{"node.session.scan": "manual"}
	for name, left := range map[string]func(m *machine){
		"nothing":                         func(*machine) {},
		"an empty record":                 func(m *machine) { m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "") },
		"a record that is not configured": func(m *machine) { record(m, portalA, map[string]string{}) },
		"a record that is configured":     func(m *machine) { record(m, portalA, manual) },
		"a session":                       func(m *machine) { record(m, portalA, manual); m.addSession(testIQN, portalA, loggedIn) },
		"a session with each portal": func(m *machine) {
			record(m, portalA, manual)
			record(m, portalB, manual)
			m.addSession(testIQN, portalA, loggedIn)
			m.addSession(testIQN, portalB, loggedIn)
		},
		"a session that is being made":      func(m *machine) { record(m, portalA, manual); m.addSession(testIQN, portalA, "FREE") },
		"a session whose record was killed": func(m *machine) { m.addSession(testIQN, portalA, loggedIn) },
	} {
		for next, call := range map[string]func(t *testing.T, i *Initiator, m *machine, target Target){
			"login and scan": func(t *testing.T, i *Initiator, m *machine, target Target) {
				require.NoError(t, i.Login(t.Context(), target, CHAP{}))
				require.Empty(t, m.disks(), "a login brought a SCSI device")
				device, err := i.Scan(t.Context(), target)
				require.NoError(t, err)
				require.ElementsMatch(t, target.Portals, device.Target.Portals)
			},
			"detach": func(*testing.T, *Initiator, *machine, Target) {},
		} {
			t.Run(name+", then "+next, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := newMachine(t)
					target, _ := m.oneVolume(portalA, portalB)
					left(m)
					call(t, m.initiator(), m, target)
					require.NoError(t, m.initiator().Detach(t.Context(), target))
					m.nothingLeft()
				})
			})
		}
	}
}

// A target that is known by two spellings is one target: a second session would be a second disk of the same LUN.
func TestTheCaseOfATargetsNameDoesNotCount(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	target.IQN = strings.ToUpper(testIQN[:3]) + testIQN[3:]
	require.Error(t, m.initiator().Login(t.Context(), target, CHAP{}), "a name that is none")
	target.IQN = strings.Replace(testIQN, "tc:01", "TC:01", 1)
	m.addSession(testIQN, portalA, loggedIn)
	i := m.initiator()
	require.NoError(t, i.Login(t.Context(), target, CHAP{}))
	in, err := i.LoggedIn(target)
	require.NoError(t, err)
	require.True(t, in)
	device, err := i.Scan(t.Context(), target)
	require.NoError(t, err)
	identified, err := i.Identify(device.Path)
	require.NoError(t, err)
	require.True(t, SameName(target.IQN, identified.Target.IQN))
	require.Empty(t, m.programs())

	release, err := i.lock(t.Context(), testIQN)
	require.NoError(t, err)
	entries, err := os.ReadDir(i.opt.LockDir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "locks of one target")
	release()
	require.NoError(t, i.Detach(t.Context(), target))
	m.nothingLeft()
}

// The spelling of a login is the caller's: there are targets that compare byte by byte.
func TestLoginKeepsTheSpellingOfATargetsName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, fake := m.oneVolume()
	target.IQN = strings.Replace(testIQN, "tc:01", "TC:01", 1)
	m.targets = map[string]*fakeTarget{target.IQN: fake}
	require.NoError(t, m.initiator().Login(t.Context(), target, CHAP{}))
	for _, program := range m.programs() {
		require.Contains(t, program, target.IQN)
	}
	require.NoError(t, m.initiator().Detach(t.Context(), target))
	m.nothingLeft()
}
