package iscsi

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnEmptyRecordIsReplaced(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "")
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, m.programs(), 3)
}

func TestAnEmptyRecordThatComesMeanwhileIsRepaired(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	broken := false
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		if broken || !slices.Contains(args, "new") {
			return "", false
		}
		broken = true
		m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "")
		return "new-over-empty-record", true
	}
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, m.programs(), 4, "the refused one and its repetition")
}

func TestADatabaseErrorThatStaysIsReported(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	m.fault = func(_ context.Context, _ string, args []string) (string, bool) {
		return "new-over-empty-record", slices.Contains(args, "new")
	}
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.ErrorContains(t, err, "create the node record of "+portalA+": iscsiadm exit 6")
	require.ErrorContains(t, err, "damaged or locked")
	require.Len(t, m.programs(), 2)
}

func TestNoSettingIsWrittenThatAnOldOpenISCSIDoesNotKnow(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	m.newRecord = "# BEGIN RECORD 2.0-874\nnode.startup = automatic\n"
	_, err := m.initiator().Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, m.programs(), 3)
	require.Equal(t, "1", m.records[testIQN+"|"+portalA]["node.session.nr_sessions"])

	i := m.initiator()
	settings := map[string]string{}
	for _, s := range i.settings(CHAP{}) {
		settings[s.name] = s.value
	}
	require.True(t, i.wrote(settings))
	settings[reopenMax] = "32"
	require.False(t, i.wrote(settings))
	delete(settings, reopenMax)
	require.True(t, i.wrote(settings), "a record of an old open-iscsi is not known as one's own")
}

// staleLock makes the lock that a killed iscsiadm leaves.
func (m *machine) staleLock(t *testing.T) {
	m.write("run/lock/iscsi/lock", "")
	require.NoError(t, os.Link(m.path("run/lock/iscsi/lock"), m.path("run", lockFile)))
	time.Sleep(2 * clockTick) // a younger one may be somebody's
}

func TestAStaleLockIsBroken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		stat   string
		broken bool
	}{
		{"no iscsiadm", "4711 (iscsid) S 1", true},
		{"dead iscsiadm", "4711 (iscsiadm) Z 1", true},
		{"living iscsiadm", "4711 (iscsiadm) S 1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			target, _ := m.oneVolume()
			m.staleLock(t)
			m.write("proc/4711/stat", test.stat)
			_, err := m.initiator().Attach(t.Context(), target, CHAP{})
			require.NoError(t, err)
			require.Equal(t, test.broken, !exists(m.path("run", lockFile)))
			require.FileExists(t, m.path("run/lock/iscsi/lock"))
		})
	}
}

func TestTheLockOfAKilledIscsiadmIsBroken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target, _ := m.oneVolume()
	ctx, cancel := context.WithCancel(t.Context())
	m.fault = func(ctx context.Context, _ string, args []string) (string, bool) {
		if !slices.Contains(args, "new") {
			return "", false
		}
		m.staleLock(t)
		m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "")
		cancel()
		<-ctx.Done()
		return "", true
	}
	_, err := m.initiator().Attach(ctx, target, CHAP{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoFileExists(t, m.path("run", lockFile))
	m.nothingLeft()
}

func TestRecordPortal(t *testing.T) {
	for name, expected := range map[string]Portal{
		"10.0.0.1,3260":          portalA,
		"10.0.0.1,3260,1":        portalA,
		"fd00::99,3260":          "[fd00::99]:3260",
		"FD00:0::99,3260,1":      "[fd00::99]:3260",
		"array.example.com,3260": "array.example.com:3260",
		"10.0.0.1":               "",
		"10.0.0.1,0":             "",
		",3260":                  "",
		"a,b,c,d":                "",
	} {
		require.Equal(t, expected, recordPortal(name), name)
	}
}

func FuzzRecordPortal(f *testing.F) {
	f.Add("10.0.0.1,3260,1")
	f.Add("fd00::99,3260")
	f.Add("[],3260,4294967295")
	f.Fuzz(func(t *testing.T, name string) {
		if portal := recordPortal(name); portal != "" {
			if again, err := canonical(portal); err != nil || again != portal {
				t.Fatalf("%q gives %q, which is not canonical: %q, %v", name, portal, again, err)
			}
		}
	})
}

// While one portal's record is written, which makes it empty for a moment, another's is prepared.
func TestEmptyRecordOfAnotherPortalIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	for _, portal := range []Portal{portalA, portalB} {
		m.write(strings.TrimPrefix(m.recordPath(testIQN, portal), m.root), "")
	}
	i.removeEmptyRecords(testIQN, portalA)
	require.Empty(t, i.recordsAt(testIQN, portalA))
	require.Len(t, i.recordsAt(testIQN, portalB), 1, "a record was removed while somebody wrote it")
	i.removeEmptyRecords(testIQN, "")
	require.NoDirExists(t, filepath.Dir(m.recordPath(testIQN, portalB)))
}
