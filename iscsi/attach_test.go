package iscsi

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAttachStartsThreeProgramsForANewSessionAndNoneForAnOldOne(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	device, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, Device{
		Path: m.path("dev/sda"), Paths: []string{m.path("dev/sda")}, Target: target, Bytes: gib,
	}, device)
	require.Equal(t, []string{
		"iscsiadm -m node -o new -T " + testIQN + " -p " + portalA,
		"iscsiadm -m node -o update -T " + testIQN + " -p " + portalA +
			" -n node.startup -v manual -n node.session.nr_sessions -v 1 -n node.session.reopen_max -v 0 -n node.session.scan -v manual -n node.session.initial_login_retry_max -v 1" +
			" -n node.conn[0].timeo.login_timeout -v 1 -n node.session.timeo.replacement_timeout -v 120" +
			" -n node.conn[0].timeo.noop_out_interval -v 5 -n node.conn[0].timeo.noop_out_timeout -v 5" +
			" -n node.session.auth.authmethod -v None -n node.session.auth.username -v  -n node.session.auth.password -v " +
			" -n node.session.auth.username_in -v  -n node.session.auth.password_in -v ",
		"iscsiadm -m node -T " + testIQN + " -p " + portalA + " --login",
	}, m.programs())

	again, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, device, again)
	require.Empty(t, m.programs(), "a call that finds its work done starts programs")
}

func TestAttachScansAnExistingSessionWithoutPrograms(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, fake := m.oneVolume()
	fake.luns[300] = fakeLUN{"lun-300", gib}
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	m.programs()
	target.LUN, target.Serial = 300, "lun-300"
	device, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, "lun-300", device.Target.Serial)
	require.Empty(t, m.programs())
}

func TestAttachConfiguresCHAP(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	_, err := m.initiator().Attach(t.Context(), target, CHAP{"node", "secret-1", "array", "secret-2"})
	require.NoError(t, err)
	record := m.records[testIQN+"|"+portalA]
	require.Equal(t, "CHAP", record["node.session.auth.authmethod"])
	require.Equal(t, "node", record["node.session.auth.username"])
	require.Equal(t, "secret-1", record["node.session.auth.password"])
	require.Equal(t, "array", record["node.session.auth.username_in"])
	require.Equal(t, "secret-2", record["node.session.auth.password_in"])
}

func TestAttachJoinsAllPortals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB, "[fd00::1]:3260")
	device, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, m.programs(), 9)
	require.Len(t, device.Paths, 3)
	require.ElementsMatch(t, target.Portals, device.Target.Portals)
	require.Equal(t, device.Paths[0], device.Path, "without multipath the oldest session's disk is used")

	// The one that is mounted stays the one to use.
	m.mount(strings.TrimPrefix(device.Paths[2], m.path("dev")+"/"), "/mnt/a")
	mounted, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, device.Paths[2], mounted.Path)
}

func TestAttachGoesOnWithoutDeadPortals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	target.Portals = []Portal{"10.0.0.9:3260", "203.0.113.1:3260", portalA}
	i := m.initiator()
	i.opt.LoginTimeout, i.opt.JoinGrace = time.Hour, 200*time.Millisecond
	for _, programs := range []int{3, 0} {
		device, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, []Portal{portalA}, device.Target.Portals)
		require.Len(t, m.programs(), programs, "a portal that does not answer costs programs")
	}

	// One that comes back is joined by the next call, and the session that is there is left as it is.
	m.targets[testIQN].portals = append(m.targets[testIQN].portals, "10.0.0.9:3260")
	device, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, device.Paths, 2)
	for _, program := range m.programs() {
		require.Contains(t, program, "10.0.0.9", "the record of a live session was touched")
	}
}

func TestAttachDoesNotWaitForALateLogin(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	m.fault = func(ctx context.Context, _ string, args []string) (string, bool) {
		if slices.Contains(args, "--login") && slices.Contains(args, portalB) {
			<-ctx.Done()
			return "", true
		}
		return "", false
	}
	i := m.initiator()
	i.opt.LoginTimeout, i.opt.JoinGrace = time.Hour, 200*time.Millisecond
	device, err := i.Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, []Portal{portalA}, device.Target.Portals)
}

func TestAttachTellsEachPortalsCauseAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		change   func(m *machine, target *Target, fake *fakeTarget)
		is       error
		says     []string
		programs int
	}{
		{"refused by the access list", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-refused-by-access-list" },
			ErrRefused, []string{"exit 19: encountered non-retryable iSCSI login failure", "access list"}, 4},
		{"refused by the access list of LIO", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-refused-by-access-list-lio" },
			ErrRefused, []string{"exit 24: iSCSI login failed due to authorization failure", "access list"}, 4},
		{"wrong CHAP", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-wrong-chap" },
			ErrRefused, []string{"exit 24", "CHAP"}, 4},
		{"accepts and does not answer", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-no-answer" },
			ErrUnreachable, []string{"exit 11: iSCSI PDU timed out"}, 4},
		{"times out", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-dead-port" },
			ErrUnreachable, []string{"exit 8: connection timed out"}, 4},
		{"iscsid dies", func(_ *machine, _ *Target, fake *fakeTarget) { fake.says = "login-no-daemon" },
			ErrNoDaemon, []string{"exit 20: could not connect to iscsid", "systemctl enable --now iscsid"}, 4},
		{"dead portals", func(_ *machine, target *Target, _ *fakeTarget) {
			target.Portals = []Portal{"10.0.0.9:3260", "203.0.113.1:3260"}
		}, ErrUnreachable, []string{"portal 10.0.0.9:3260: portal does not answer: dial tcp", "connection refused", "portal 203.0.113.1:3260: ", "within 1s"}, 0},
		{"no iscsid", func(m *machine, _ *Target, _ *fakeTarget) { m.write("proc/net/unix", "") },
			ErrNoDaemon, []string{"systemctl enable --now iscsid"}, 0},
		{"no such LUN", func(_ *machine, target *Target, _ *fakeTarget) { target.LUN = 7 },
			nil, []string{"LUN 7", "mapped to this node"}, 5},
		{"wrong disk", func(_ *machine, target *Target, _ *fakeTarget) { target.Serial = "expected-one" },
			ErrWrongSerial, []string{testSerial, "expected-one"}, 5},
		{"two portals, two causes", func(_ *machine, target *Target, fake *fakeTarget) {
			target.Portals = []Portal{portalA, "10.0.0.9:3260"}
			fake.says = "login-wrong-chap"
		}, ErrRefused, []string{"portal " + portalA + ": log in to", "portal 10.0.0.9:3260: portal does not answer"}, 4},
		{"session that never comes", func(m *machine, _ *Target, _ *fakeTarget) {
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return "login-again", slices.Contains(args, "--login")
			}
		}, nil, []string{"exit 15"}, 4},
		{"login that made no session", func(m *machine, _ *Target, _ *fakeTarget) {
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return "login", slices.Contains(args, "--login")
			}
		}, nil, []string{"log in to " + portalA, "the kernel has no such session; look at dmesg and `iscsi status`"}, 4},
		{"update refused", func(m *machine, _ *Target, _ *fakeTarget) {
			m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
				return "update-bad-name", slices.Contains(args, "update")
			}
		}, nil, []string{"configure the node record of " + portalA, "exit 7", "Invalid param name"}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			target, fake := m.oneVolume()
			test.change(m, &target, fake)
			i := m.initiator()
			i.opt.DiskTimeout = 300 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if test.name == "session that never comes" {
				ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				test.says = []string{"log in to " + portalA, "deadline exceeded"}
			}
			_, err := i.Attach(ctx, target, CHAP{Username: "node", Password: "canary-secret"})
			require.Error(t, err)
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			}
			for _, text := range append(test.says, target.IQN) {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "canary-secret")
			require.NotContains(t, err.Error(), "\n")
			require.Len(t, m.programs(), test.programs)
			m.nothingLeft()
		})
	}
}

func TestAttachRevivesALostSession(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		change   func(m *machine, i *Initiator, session string)
		programs int
		is       error
		says     string
	}{
		{"that comes back", func(m *machine, _ *Initiator, session string) {
			time.AfterFunc(30*time.Millisecond, func() { m.setState(session, "LOGGED_IN") })
		}, 0, nil, ""},
		{"that does not", func(*machine, *Initiator, string) {}, 4, nil, ""},
		{"that goes away by itself", func(m *machine, _ *Initiator, session string) {
			m.mu.Lock()
			m.logoutSession(session, "")
			m.mu.Unlock()
		}, 3, nil, ""},
		{"whose disk is mounted", func(m *machine, _ *Initiator, _ string) { m.mount("sda", "/mnt/a") }, 0, ErrInUse, "look at dmesg, the target and the network to it"},
		{"whose portal is dead", func(m *machine, _ *Initiator, _ string) { m.targets[testIQN].portals = nil }, 0, ErrUnreachable, "portal does not answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			target, _ := m.oneVolume()
			i := m.initiator()
			_, err := i.Attach(t.Context(), target, CHAP{})
			require.NoError(t, err)
			m.programs()
			lost := m.sessionAt(testIQN, portalA)
			m.setState(lost, "FAILED")
			_, found, err := i.Find(t.Context(), target)
			require.NoError(t, err)
			require.False(t, found, "a lost session counts as attached")
			test.change(m, i, lost)
			_, err = i.Attach(t.Context(), target, CHAP{})
			require.ErrorIs(t, err, test.is)
			if test.says != "" {
				require.ErrorContains(t, err, test.says)
			}
			require.Len(t, m.programs(), test.programs)
		})
	}
}

func TestAttachThatIsCancelledInTheLoginLeavesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume(portalA, portalB)
	ctx, cancel := context.WithCancel(t.Context())
	m.fault = func(ctx context.Context, _ string, args []string) (string, bool) {
		if !slices.Contains(args, "--login") {
			return "", false
		}
		m.mu.Lock()
		m.addSession(testIQN, args[slices.Index(args, "-p")+1], "LOGGED_IN") // iscsid has done it; iscsiadm has not heard
		m.mu.Unlock()
		cancel()
		<-ctx.Done()
		return "", true
	}
	began := time.Now()
	_, err := m.initiator().Attach(ctx, target, CHAP{})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 5*time.Second)
	m.nothingLeft()
}

func TestAttachSaysWhatItCouldNotTakeBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, fake := m.oneVolume()
	fake.luns = nil
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		return "logout-login-under-way", slices.Contains(args, "--logout")
	}
	i := m.initiator()
	i.opt.DiskTimeout = 300 * time.Millisecond
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.ErrorContains(t, err, "no such LUN")
	require.ErrorContains(t, err, "not cleaned up")
	require.ErrorContains(t, err, "exit 9: internal error")
}

func TestAttachTakesASessionWhoseLoginIsNeverAnswered(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		if slices.Contains(args, "--login") {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.addSession(testIQN, portalA, "LOGGED_IN")
			return "login-again", true
		}
		return "", false
	}
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
}

func TestAttachOfOneTargetAtTheSameTimeLogsInOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	var group sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		group.Go(func() {
			_, err := m.initiator().Attach(t.Context(), target, CHAP{})
			results <- err
		})
	}
	group.Wait()
	close(results)
	for err := range results {
		require.NoError(t, err)
	}
	require.Len(t, m.programs(), 3, "programs for eight calls")
}

func TestAttachWaitsForTheLockNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	release, err := i.lock(t.Context(), testIQN)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = m.initiator().Attach(ctx, target, CHAP{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "another call that works on target "+testIQN)
	release()
	_, err = m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
}

func TestAttachRestoresTheRecoveryTimeOfASession(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	i := m.initiator()
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	s, found, err := i.sessionAt(testIQN, portalA)
	require.NoError(t, err)
	require.True(t, found)
	for _, diskIsThere := range []bool{true, false} {
		i.setRecovery(s, 5*time.Second)
		require.Equal(t, "5", attribute(s.class, "recovery_tmo"))
		if !diskIsThere {
			m.removeDisk(s.disks()[0].dir)
		}
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, "120", attribute(s.class, "recovery_tmo"), "disk is there: %t", diskIsThere)
	}
}
