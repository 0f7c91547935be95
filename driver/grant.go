package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"datera-flexvolume/datera"
)

// Who may reach a volume is kept on the array alone: in one initiator group for each
// PersistentVolume (in attach mode none: for each app instance), to which the volume's ACL
// policy refers. A second group, to which no policy refers, notes which members attached
// read-only.
//
// With read-write access a volume has one member. The array handles one addition after
// the other and answers each with the members there are then, so of two nodes that race
// exactly one sees itself alone; the other one takes itself out again.
//
// Two PersistentVolumes, or two clusters, may name one volume of the array: then its
// policy refers to a group of each, and the members of all of them count. So does whoever
// has a session, with or without a grant.

func (d *Driver) groupName(name string) string   { return entityNameFor(d.Config.Cluster, name) }
func (d *Driver) readersName(name string) string { return readersNameFor(d.Config.Cluster, name) }
func (d *Driver) groupNames(name string) []string {
	return []string{d.groupName(name), d.readersName(name)}
}

// A grant gives one node access to one volume.
type grant struct {
	driver *Driver
	array  Array
	volume Volume
	node   string
	iqn    string
}

func (g grant) group() string   { return g.driver.groupName(g.volume.Name) }
func (g grant) readers() string { return g.driver.readersName(g.volume.Name) }

// give lets the node in, or says who is in its way. It looks before it adds: a node that
// was fenced must not be let in for even a moment. When it fails, fresh says that the node
// may have been let in nevertheless, and was not in before: it is to be undone.
func (g grant) give(ctx context.Context, instance *datera.StorageInstance) (fresh bool, err error) {
	if instance.AccessControlMode == allowAll {
		return false, fmt.Errorf("volume %s lets every initiator in (access_control_mode %s), so nothing keeps two nodes apart: set it to %s on the array",
			g.volume.AppInstance, allowAll, denyAll)
	}
	referred, others := instance.ACL.RefersTo(g.group()), otherGroups(instance, []string{g.group()})
	state, err := g.look(ctx, referred, others, instance.ActiveInitiators)
	if err != nil {
		return !referred && g.leadsNowhere(ctx), err
	}
	if err := g.refuseOutsiders(ctx, state, instance.ActiveInitiators); err != nil {
		if !referred { // of what an earlier call left there nobody was told
			err = errors.Join(err, g.withdraw(ctx, state, referred, instance.ActiveInitiators))
		}
		return false, err
	}
	if rivals := state.rivals(g.iqn, g.volume.ReadOnly); len(rivals) > 0 {
		if state, err = g.takeOver(ctx, state, rivals); err != nil {
			// Where nobody is taken over, nothing was begun.
			began := g.driver.Config.Attach == AttachNone && !slices.Contains(state.members, g.iqn)
			return began, errors.Join(err, g.withdraw(ctx, state, referred, instance.ActiveInitiators))
		}
	}
	fresh = state.fresh || !slices.Contains(state.members, g.iqn)
	if !fresh && !referred {
		fresh = g.leadsNowhere(ctx)
	}
	if g.writes(state, instance.ActiveInitiators) {
		g.volume.ReadOnly = false
	}
	if err := g.enter(ctx, instance, state, referred); err != nil {
		return fresh, err
	}
	g.shutVacantOut(ctx, instance, state.vacant)
	return fresh, nil
}

// writes reports whether the node has the volume to write, for another pod: as long as it has a session it is noted as a
// reader for nobody. In attach mode none no pod has it.
func (g grant) writes(state grantState, active []string) bool {
	return g.driver.Config.Attach != AttachNone && slices.Contains(state.members, g.iqn) && !state.readsOnly(g.iqn) && slices.Contains(active, g.iqn)
}

// enter lets the node in where nobody is in its way, and looks who came at the same time.
func (g grant) enter(ctx context.Context, instance *datera.StorageInstance, state grantState, referred bool) error {
	if err := g.noteAccess(ctx, state); err != nil {
		return err
	}
	if err := g.join(ctx, state); err != nil {
		return err
	}
	if g.volume.ReadOnly || state.readsOnly(g.iqn) {
		if err := g.confirmAccess(ctx, state); err != nil {
			return err
		}
	}
	if referred && slices.Contains(state.members, g.iqn) {
		return nil // it was in already: whoever came later has seen it
	}
	if !referred && state.exists && len(state.members) == 0 {
		if err := g.leaveFormerVolumes(ctx); err != nil {
			return err
		}
	}
	if !referred {
		if err := g.array.AddInitiatorGroup(ctx, instance.Path, g.group()); err != nil {
			return fmt.Errorf("add initiator group %s to the ACL policy of volume %s on %s: %w", g.group(), g.volume.AppInstance, g.array.Server(), err)
		}
	}
	return g.lookAgain(ctx)
}

// undo takes the node out again after a failure, also when the call's time is up: kubelet
// does not detach a volume whose attach has failed.
func (g grant) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return g.leave(ctx)
}

// refuseOutsiders deals with those who reach the volume by another name, or by a session alone.
func (g grant) refuseOutsiders(ctx context.Context, state grantState, active []string) error {
	if err := g.refuseTwice(ctx, state); err != nil {
		return err
	}
	if len(state.outsiders(g.iqn, active)) == 0 {
		return nil
	}
	return g.awaitOutsiders(ctx, state)
}

// refuseTwice keeps a node from having a volume under two names: each mount would keep the
// other one from being taken off.
func (g grant) refuseTwice(ctx context.Context, state grantState) error {
	if !slices.Contains(state.others, g.iqn) {
		return nil
	}
	return fmt.Errorf("volume %s is attached to node %s (%s) already, by another PersistentVolume or cluster: delete the pods that use that one, and wait until it is detached%s",
		g.volume.AppInstance, g.node, g.iqn, g.otherUse(ctx, state))
}

const groupPath = "/initiator_groups/"

// otherGroups are the groups of other PersistentVolumes and clusters in a volume's ACL
// policy. What other software put there is not the driver's to judge, until it logs in.
func otherGroups(instance *datera.StorageInstance, own []string) []string {
	var others []string
	for _, reference := range instance.ACL.InitiatorGroups {
		name := strings.TrimPrefix(reference.Path, groupPath)
		if strings.HasPrefix(name, groupPrefix) && !slices.Contains(own, name) {
			others = append(others, name)
		}
	}
	return others
}

// look reads the groups. A volume whose ACL policy does not refer to a group has most
// likely none: it is made at once, and read only when it turns out to be there.
func (g grant) look(ctx context.Context, referred bool, others, active []string) (grantState, error) {
	if !referred && len(others) == 0 && !slices.ContainsFunc(active, func(iqn string) bool { return iqn != g.iqn }) {
		group, created, err := g.array.CreateInitiatorGroup(ctx, g.group(), g.iqn)
		if err != nil {
			return grantState{}, fmt.Errorf("make initiator group %s on %s: %w", g.group(), g.array.Server(), err)
		}
		if created && !g.volume.ReadOnly {
			return grantState{exists: true, fresh: true, members: group.Members}, nil
		}
		state, err := g.state(ctx, others)
		state.fresh = created
		return state, err
	}
	return g.state(ctx, others)
}

func (g grant) state(ctx context.Context, others []string) (grantState, error) {
	groups, err := g.array.InitiatorGroups(ctx, append([]string{g.group(), g.readers()}, others...)...)
	if err != nil {
		return grantState{}, fmt.Errorf("ask %s who holds volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	return g.driver.grantState(groups, g.volume.Name), nil
}

// sessionEnd is how long a session may go on after its grant was taken away.
const sessionEnd = 3 * time.Second

// awaitOutsiders waits for the end of sessions that have no grant any more. Whoever has a
// grant by another group, or does not go, is in the way.
func (g grant) awaitOutsiders(ctx context.Context, state grantState) error {
	if outsiders := state.outsiders(g.iqn, nil); len(outsiders) > 0 {
		return fmt.Errorf("%w%s", g.refusal(ctx, outsiders), g.otherUse(ctx, state))
	}
	patient, cancel := context.WithTimeout(ctx, sessionEnd)
	defer cancel()
	var outsiders []string
	_, err := backoff.Retry(patient, func() (bool, error) {
		ai, err := g.array.AppInstance(ctx, g.volume.AppInstance)
		if err != nil {
			return false, backoff.Permanent(err)
		}
		instance, err := ai.StorageInstance()
		if err != nil {
			return false, backoff.Permanent(err)
		}
		if outsiders = state.outsiders(g.iqn, instance.ActiveInitiators); len(outsiders) > 0 {
			return false, errors.New("sessions go on")
		}
		return true, nil
	}, backoff.WithBackOff(pace(sessionEnd/10)), backoff.WithMaxElapsedTime(0))
	if len(outsiders) > 0 {
		return g.refusal(ctx, outsiders)
	}
	return err
}

func (g grant) otherUse(ctx context.Context, state grantState) string {
	return g.driver.otherUse(ctx, g.array, state.foreign, g.volume.AppInstance)
}

func (g grant) refusal(ctx context.Context, rivals []string) error {
	holder := rivals[0]
	if initiator, err := g.array.Initiator(ctx, holder); err == nil {
		holder = fmt.Sprintf("node %s (%s)", nodeOf(g.driver.Config.Cluster, initiator.Name), initiator.ID)
	}
	access := "read-write"
	if g.volume.ReadOnly {
		access = "read-only"
	}
	remedy := "it is free when the pod there is gone and the volume detached (for a node that is dead: taint it with node.kubernetes.io/out-of-service)"
	if g.driver.Config.Attach == AttachNone {
		remedy = "it is free when the last pod there is gone, or that node has no session any more"
	}
	return fmt.Errorf("volume %s cannot be attached %s to node %s: %s holds it; %s", g.volume.AppInstance, access, g.node, holder, remedy)
}

// noteAccess keeps the list of readers true before the member is added, so that nobody
// ever takes a writer for a reader.
func (g grant) noteAccess(ctx context.Context, state grantState) error {
	var err error
	switch noted := state.readsOnly(g.iqn); {
	case g.volume.ReadOnly && !noted:
		// Where the group is missing nobody is noted in the list: look relies on that.
		if !state.exists {
			_, _, err = g.array.CreateInitiatorGroup(ctx, g.group())
		}
		if err == nil {
			_, _, err = g.array.CreateInitiatorGroup(ctx, g.readers())
		}
		if err == nil {
			_, err = g.array.AddMember(ctx, g.readers(), g.iqn)
		}
	case !g.volume.ReadOnly && noted:
		_, err = g.array.RemoveMember(ctx, g.readers(), g.iqn)
	}
	if err != nil {
		return fmt.Errorf("note the access of node %s to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
	}
	return nil
}

// join adds the node and looks at who is in the group then.
func (g grant) join(ctx context.Context, before grantState) error {
	if slices.Contains(before.members, g.iqn) {
		return nil
	}
	add := g.array.AddMember
	if !before.exists {
		add = func(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
			made, _, err := g.array.CreateInitiatorGroup(ctx, group, iqn)
			return made, err
		}
	}
	group, err := add(ctx, g.group(), g.iqn)
	if err != nil {
		return fmt.Errorf("give node %s access to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
	}
	if !slices.Contains(group.Members, g.iqn) { // somebody made the group meanwhile
		if group, err = g.array.AddMember(ctx, g.group(), g.iqn); err != nil {
			return fmt.Errorf("give node %s access to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
		}
	}
	after := grantState{members: group.Members, readers: before.readers}
	if rivals := after.rivals(g.iqn, g.volume.ReadOnly); len(rivals) > 0 {
		return g.refusal(ctx, rivals)
	}
	return nil
}

// confirmAccess looks at readers and writers once more where one of them may have become
// the other in the meantime.
func (g grant) confirmAccess(ctx context.Context, before grantState) error {
	after, err := g.state(ctx, nil)
	if err != nil {
		return err
	}
	rivals := after.rivals(g.iqn, g.volume.ReadOnly)
	if len(rivals) == 0 {
		return nil
	}
	if slices.Contains(before.members, g.iqn) && before.readsOnly(g.iqn) { // it keeps reading, as before
		_, err = g.array.AddMember(ctx, g.readers(), g.iqn)
	}
	return errors.Join(g.refusal(ctx, rivals), err)
}

// lookAgain finds those who came by another group at the same time, and whether the volume still lets the node in: another
// attach may have taken the group out when it had no members, and a delete the volume offline.
func (g grant) lookAgain(ctx context.Context) error {
	ai, err := g.array.AppInstance(ctx, g.volume.AppInstance)
	if err != nil {
		return fmt.Errorf("ask %s who holds volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	instance, err := ai.StorageInstance()
	if err != nil {
		return err
	}
	if ai.AdminState != datera.AdminOnline || !instance.ACL.RefersTo(g.group()) {
		return fmt.Errorf("volume %s was attached to node %s while another call took it offline or changed whom it lets in: it is tried again", g.volume.AppInstance, g.node)
	}
	others := otherGroups(instance, []string{g.group()})
	if len(others) == 0 {
		return nil
	}
	state, err := g.state(ctx, others)
	if err != nil {
		return err
	}
	if outsiders := state.outsiders(g.iqn, nil); len(outsiders) > 0 {
		return fmt.Errorf("%w%s", g.refusal(ctx, outsiders), g.otherUse(ctx, state))
	}
	return g.refuseTwice(ctx, state)
}

func (g grant) leave(ctx context.Context) error {
	mine := grantState{members: []string{g.iqn}, readers: []string{g.iqn}}
	return g.driver.revoke(ctx, g.array, g.volume.Name, g.iqn, mine)
}

// withdraw takes back what an earlier call left that was killed between joining and looking
// who was there: a grant of which nobody was told, so that it has no session.
func (g grant) withdraw(ctx context.Context, state grantState, referred bool, active []string) error {
	granted := slices.Contains(state.members, g.iqn)
	if !granted || referred && state.readsOnly(g.iqn) || slices.Contains(active, g.iqn) || !referred && !g.leadsNowhere(ctx) {
		return nil
	}
	return g.driver.revoke(ctx, g.array, g.volume.Name, g.iqn, state)
}
