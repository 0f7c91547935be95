package driver

import (
	"context"
	"errors"
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
	volume, err := ParseVolume(optionsUnder("db", "vol-2"), "kubernetes")
	require.NoError(t, err)
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
	open := b.OpenArray
	b.OpenArray = func(scheme string, credentials Credentials, tenant string) (Array, error) {
		real, err := open(scheme, credentials, tenant)
		return &renaming{Array: real}, err
	}
	require.Contains(t, b.refused(t, "attach", optionsUnder("db", "vol-1"), "node-a"), "is tried again")
	require.Empty(t, a.members(server, "db"))
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"))
}

// renaming is an array on which the name goes to another volume before a member is added.
type renaming struct{ Array }

func (r *renaming) AddMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	leads, err := r.AppInstancesReferringTo(ctx, group)
	for _, ai := range leads {
		err = errors.Join(err, r.RemoveInitiatorGroup(ctx, ai.StorageInstances[0].Path, group))
	}
	if err != nil {
		return nil, err
	}
	return r.Array.AddMember(ctx, group, iqn)
}

// Who attaches the former volume while its name is on the way to another one keeps it.
func TestANameDoesNotGoWhileSomebodyJoins(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	open := b.OpenArray
	b.OpenArray = func(scheme string, credentials Credentials, tenant string) (Array, error) {
		real, err := open(scheme, credentials, tenant)
		return &joining{real, a.iqn}, err
	}
	require.Contains(t, b.refused(t, "attach", optionsUnder("db", "vol-2"), "node-b"), "node-a")
	require.Equal(t, []string{a.iqn}, a.letIn(t, "vol-1"))
}

// joining is an array on which somebody joins a group as soon as it is known which volumes refer to that.
type joining struct {
	Array
	iqn string
}

func (j *joining) AppInstancesReferringTo(ctx context.Context, group string) ([]datera.AppInstance, error) {
	leads, err := j.Array.AppInstancesReferringTo(ctx, group)
	_, joinErr := j.AddMember(ctx, group, j.iqn)
	return leads, errors.Join(err, joinErr)
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
	volume := func(id string) Volume {
		v, err := ParseVolume(optionsUnder("db", id), "kubernetes")
		require.NoError(t, err)
		return v
	}
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
