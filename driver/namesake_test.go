package driver

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
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

// meddled is an array on which something else happens before somebody joins a group, or after a question was answered.
type meddled struct {
	Array
	join, leads func(group string)
	volume      func()
}

func (m meddled) AddMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	if m.join != nil {
		m.join(group)
	}
	return m.Array.AddMember(ctx, group, iqn)
}

func (m meddled) AppInstancesReferringTo(ctx context.Context, group string) ([]datera.AppInstance, error) {
	leads, err := m.Array.AppInstancesReferringTo(ctx, group)
	if m.leads != nil {
		m.leads(group)
	}
	return leads, err
}

func (m meddled) AppInstance(ctx context.Context, name string) (*datera.AppInstance, error) {
	ai, err := m.Array.AppInstance(ctx, name)
	if m.volume != nil {
		m.volume()
	}
	return ai, err
}

func optionsUnder(name, volume string) string {
	return optionsWith(map[string]string{keyName: name, optVolumeID: volume, optRetainPolicy: "never"})
}

func volumeUnder(t *testing.T, name, id string) Volume {
	t.Helper()
	volume, err := ParseVolume(optionsUnder(name, id), "kubernetes")
	require.NoError(t, err)
	return volume
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

// Who was not detached may be busy with the former volume. What that leaves behind goes as soon as he is detached.
func TestANameThatGoesToAnotherVolumeLeavesAMemberAlone(t *testing.T) {
	server := array(t)
	a, b, c := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t), newNode(t, server, "node-c").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"), "a session may have been cut that had something to write")
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	b.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-b")
	c.ask(t, "attach", optionsUnder("db", "vol-2"), "node-c")
	require.Equal(t, []string{b.iqn}, a.letIn(t, "vol-1"), "two nodes are let in")
	require.Equal(t, []string{c.iqn}, a.letIn(t, "vol-2"))
}

// A session that has broken off for some seconds is no reason to let somebody else in, or to delete the volume.
func TestANameThatGoesToAnotherVolumeIsNotJudgedBySessions(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a") // whose session is about to begin
	setActiveInitiators(t, server, "vol-1", a.iqn)
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-2", "vol-2"), "node-b"), "node-a")
	volume := volumeUnder(t, "db", "vol-2")
	require.ErrorContains(t, b.Delete(t.Context(), volume), "is in use by "+a.iqn)
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-2"))
}

// Two nodes attach one name for two volumes at the same moment: none is told that it is attached and is not let in.
func TestANameThatGoesToAnotherVolumeInTheMiddleOfAnAttach(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	b := newNode(t, server, "node-a")
	b.iqn = a.iqn
	b.over(func(real Array) Array {
		return meddled{Array: real, join: func(group string) {
			leads, err := real.AppInstancesReferringTo(t.Context(), group)
			require.NoError(t, err)
			for _, ai := range leads {
				require.NoError(t, real.RemoveInitiatorGroup(t.Context(), ai.StorageInstances[0].Path, group))
			}
		}}
	})
	require.Contains(t, b.refused(t, "attach", optionsUnder("db", "vol-1"), "node-a"), "is tried again")
	require.Empty(t, a.members(server, "db"))
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"))
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
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	volume := func(id string) Volume { return volumeUnder(t, "db", id) }
	n.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	n.ask(t, "detach", "db", "node-a")
	n.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.NoError(t, n.Delete(t.Context(), volume("vol-1")), "a volume is kept by the one that has its name now")
	require.NoError(t, n.Delete(t.Context(), volume("vol-1")), "deleting what is gone is done")
	require.Equal(t, []string{n.iqn}, n.members(server, "db"), "the grant of the volume that has the name now is gone")
	require.ErrorContains(t, n.Delete(t.Context(), volume("vol-2")), "is in use by "+n.iqn)
	n.ask(t, "detach", "db", "node-a")
	require.NoError(t, n.Delete(t.Context(), volume("vol-2")))
}

// Both volumes still refer to the group: the array does not delete it with the first.
func TestDeleteBothVolumesOfAName(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	for _, id := range []string{"vol-1", "vol-2"} {
		n.ask(t, "attach", optionsUnder("db", id), "node-a")
	}
	n.ask(t, "detach", "db", "node-a")
	for _, id := range []string{"vol-1", "vol-2"} {
		volume := volumeUnder(t, "db", id)
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

// The attach that fails was for the new volume; the former one may have something to write still.
func TestANameThatGoesToAnotherVolumeAndFailsLeavesTheFormerAlone(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	setActiveInitiators(t, server, "vol-1", a.iqn)
	a.over(func(real Array) Array { return noACL{real} })
	a.refused(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"), "the former volume is cut off")

	// Whose the grant is cannot be asked.
	away := a.over(func(real Array) Array { return unlisted{real} })
	a.refused(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"), "the former volume is cut off, because a question had no answer")
	away()

	_, err := mustArray(t, a).AddMember(t.Context(), a.groupName("db"), newNode(t, server, "node-b").registered(t).iqn)
	require.NoError(t, err)
	require.Contains(t, a.refused(t, "attach", optionsUnder("db", "vol-2"), "node-a"), "node-b")
	require.Contains(t, a.letIn(t, "vol-1"), a.iqn, "the former volume is cut off, because a rival is there")
}

// unlisted is an array that does not list its app instances.
type unlisted struct{ Array }

func (unlisted) AppInstancesReferringTo(context.Context, string) ([]datera.AppInstance, error) {
	return nil, errInjected
}

// An option may name a volume by its ID, too.
func TestAVolumeThatIsNamedByItsIDIsNoOther(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	ai, err := mustArray(t, a).AppInstance(t.Context(), "vol-1")
	require.NoError(t, err)
	require.NotContains(t, b.refused(t, "attach", optionsUnder("db-old", ai.ID), "node-b"), "leads to volume")
	a.ask(t, "detach", "db", "node-a")
	b.ask(t, "attach", optionsUnder("db", ai.ID), "node-b")
	require.Equal(t, []string{b.iqn}, b.letIn(t, "vol-1"))
}

// Whose a grant is cannot be told where a name leads to two volumes: both are kept, and the message says how to go on.
func TestANameThatLeadsToTwoVolumesIsNamed(t *testing.T) {
	server := array(t)
	a, b, c := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t), newNode(t, server, "node-c").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	c.ask(t, "attach", optionsUnder("db", "vol-2"), "node-c")

	remedy := "initiator group " + a.groupName("db") + " leads to volume vol-2, too: if only that one is used there, remove the group from the ACL policy of volume vol-1"
	require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), remedy)
	volume := volumeUnder(t, "db-old", "vol-1")
	require.ErrorContains(t, b.Delete(t.Context(), volume), remedy)
	require.Contains(t, c.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-c"), remedy)
}

// A group that nobody uses is paid for once, not by each attach.
func TestAGroupThatNobodyUsesCostsNothing(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	for _, name := range []string{"db", "db-2", "db-3"} {
		a.ask(t, "attach", optionsUnder(name, "vol-1"), "node-a")
		a.ask(t, "detach", name, "node-a")
	}
	listed := 0
	b.over(func(real Array) Array { return meddled{Array: real, leads: func(string) { listed++ }} })
	b.ask(t, "attach", optionsUnder("db-3", "vol-1"), "node-b")
	require.Zero(t, listed, "all app instances of the tenant are read")
	ai, err := mustArray(t, a).AppInstance(t.Context(), "vol-1")
	require.NoError(t, err)
	require.Len(t, ai.StorageInstances[0].ACL.InitiatorGroups, 1)
}

// The delete has read that nobody has the volume; then the first node gets it.
func TestDeleteWhileTheFirstNodeComes(t *testing.T) {
	server := array(t)
	a, control := newNode(t, server, "node-a").registered(t), newNode(t, server, "control")
	makeVolume(t, a, "vol-1")
	attaches := sync.OnceFunc(func() { a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a") })
	control.over(func(real Array) Array { return meddled{Array: real, volume: attaches} })
	volume := volumeUnder(t, "db", "vol-1")
	require.ErrorContains(t, control.Delete(t.Context(), volume), "is in use by "+a.iqn)
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"))
}

// The delete has looked at everybody; then a node is let in.
func TestDeleteWhileANodeIsLetIn(t *testing.T) {
	server := array(t)
	a, control := newNode(t, server, "node-a").registered(t), newNode(t, server, "control")
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	control.over(func(real Array) Array {
		return beforeOffline{real, func() { a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a") }}
	})
	volume := volumeUnder(t, "db", "vol-1")
	require.ErrorContains(t, control.Delete(t.Context(), volume), "is in use by "+a.iqn)
	ai, err := mustArray(t, a).AppInstance(t.Context(), "vol-1")
	require.NoError(t, err)
	require.Equal(t, datera.AdminOnline, ai.AdminState, "whom the volume was given cannot log in")
}

// Kubernetes takes a volume for attached as long as isattached says so.
func TestANameThatGoesToAnotherVolumeIsNotAttachedToThat(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	require.False(t, *a.ask(t, "isattached", optionsUnder("db", "vol-2"), "node-a").Attached, "vol-2 is not there yet")
	makeVolume(t, a, "vol-2")
	require.False(t, *a.ask(t, "isattached", optionsUnder("db", "vol-2"), "node-a").Attached)
	control := newNode(t, server, "control") // which remembers nothing
	require.True(t, *control.ask(t, "isattached", optionsUnder("db", "vol-1"), "node-a").Attached)
	require.False(t, *control.ask(t, "isattached", optionsUnder("db", "vol-2"), "node-a").Attached)
}

// An earlier delete was killed after it took the volume offline, and a node had just been let in.
func TestDeleteThatIsRefusedBringsTheVolumeOnline(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	_, err := mustArray(t, a).SetAdminState(t.Context(), "vol-1", datera.AdminOffline, true)
	require.NoError(t, err)
	volume := volumeUnder(t, "db", "vol-1")
	require.ErrorContains(t, a.Delete(t.Context(), volume), "is in use by "+a.iqn)
	ai, err := mustArray(t, a).AppInstance(t.Context(), "vol-1")
	require.NoError(t, err)
	require.Equal(t, datera.AdminOnline, ai.AdminState)
}
