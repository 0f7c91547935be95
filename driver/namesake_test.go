package driver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// letIn are those whom a volume lets in, by the groups of all PersistentVolumes.
func (n *node) letIn(t *testing.T, volume string) []string {
	t.Helper()
	ai, err := mustArray(t, n).AppInstance(t.Context(), volume)
	require.NoError(t, err)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	var all []string
	for _, name := range otherGroups(instance, nil) {
		groups, err := mustArray(t, n).InitiatorGroups(t.Context(), name)
		require.NoError(t, err)
		all = append(all, groups[name].Members...)
	}
	return all
}

func optionsUnder(name, volume string) string {
	return optionsWith(map[string]string{keyName: name, optVolumeID: volume, optRetainPolicy: "never"})
}

func TestANameThatGoesToAnotherVolumeOpensTheFormerToNobody(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-2"))
	require.Empty(t, a.letIn(t, "vol-1"), "who attached the new volume may log in to the former one, too")
	b.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-b")
	require.Equal(t, []string{b.iqn}, a.letIn(t, "vol-1"))

	a.ask(t, "detach", "db", "node-a")
	b.ask(t, "detach", "db-old", "node-b")
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	require.Empty(t, a.letIn(t, "vol-2"), "the name went back")
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), "node-a", "two names let two nodes in")
}

// A session that is not yet closed is left alone. What it leaves behind keeps nobody from the volume later.
func TestANameThatGoesToAnotherVolumeLeavesASessionAlone(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	setActiveInitiators(t, server, "vol-1", a.iqn)
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"), "a session was cut that may have something to write")
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), "node-a")

	setActiveInitiators(t, server, "vol-1")
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), "node-a", "which of the two volumes node-a has is not known yet")
	setActiveInitiators(t, server, "vol-2", a.iqn)
	b.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-b")
	require.Equal(t, []string{b.iqn}, a.letIn(t, "vol-1"))
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-2"))
}

func TestTwoNamesOnOneNodeAfterOneWasMadeAnew(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	n.ask(t, "detach", "db", "node-a")
	n.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-a")
	setActiveInitiators(t, server, "vol-1", n.iqn)
	n.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	other := newNode(t, server, "node-a") // which remembers nothing
	other.iqn = n.iqn
	other.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-a")
	require.Equal(t, []string{n.iqn}, n.letIn(t, "vol-1"))
}

func TestDeleteWhereTheNameIsAnotherVolumesByNow(t *testing.T) {
	for name, sessionInTheWay := range map[string]bool{"detached in between": false, "with a session in between": true} {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a").registered(t)
			volume := func(id string) Volume {
				v, err := ParseVolume(optionsUnder("db", id), "kubernetes")
				require.NoError(t, err)
				return v
			}
			n.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
			if sessionInTheWay {
				setActiveInitiators(t, server, "vol-1", n.iqn)
			} else {
				n.ask(t, "detach", "db", "node-a")
			}
			n.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
			setActiveInitiators(t, server, "vol-1")
			setActiveInitiators(t, server, "vol-2", n.iqn)
			require.NoError(t, n.Delete(t.Context(), volume("vol-1")), "a volume is kept by the one that has its name now")
			require.NoError(t, n.Delete(t.Context(), volume("vol-1")), "deleting what is gone is done")
			require.Equal(t, []string{n.iqn}, n.members(server, "db"), "the grant of the volume that has the name now is gone")
			require.ErrorContains(t, n.Delete(t.Context(), volume("vol-2")), "is in use by "+n.iqn)
			setActiveInitiators(t, server, "vol-2")
			n.ask(t, "detach", "db", "node-a")
			require.NoError(t, n.Delete(t.Context(), volume("vol-2")))
		})
	}
}

// Both volumes still refer to the group: the array does not delete it with the first.
func TestDeleteBothVolumesOfAName(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	for _, id := range []string{"vol-1", "vol-2"} {
		n.ask(t, "attach", optionsUnder("db", id), "node-a")
		setActiveInitiators(t, server, id, n.iqn)
	}
	for _, id := range []string{"vol-1", "vol-2"} {
		setActiveInitiators(t, server, id)
	}
	n.ask(t, "detach", "db", "node-a")
	for _, id := range []string{"vol-1", "vol-2"} {
		volume, err := ParseVolume(optionsUnder("db", id), "kubernetes")
		require.NoError(t, err)
		require.NoError(t, n.Delete(t.Context(), volume))
	}
	groups, err := mustArray(t, n).InitiatorGroups(t.Context(), n.groupNames("db")...)
	require.NoError(t, err)
	require.Empty(t, groups, "a group is left to nobody")
}

// Where several read, some of them may be about to log in to the volume that the name led to when they were attached.
func TestANameThatGoesToAnotherVolumeKeepsItsReaders(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	reading := func(volume string) string {
		return optionsWith(map[string]string{keyName: "db", optVolumeID: volume, keyReadWrite: "ro"})
	}
	a.ask(t, "attach", reading("vol-1"), "node-a")
	b.ask(t, "attach", reading("vol-2"), "node-b")
	require.Contains(t, a.letIn(t, "vol-1"), a.iqn)
}
