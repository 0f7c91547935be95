package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"datera-flexvolume/datera"
)

// Who may reach a volume is kept on the array alone: in one initiator group for each
// volume, to which the volume's ACL policy refers. A second group, to which no policy
// refers, notes which members attached read-only.
//
// With read-write access a volume has one member. The array handles one addition after
// the other and answers each with the members there are then, so of two nodes that race
// exactly one sees itself alone; the other one takes itself out again.

func (d *Driver) groupName(name string) string   { return entityNameFor(d.Config.Cluster, name) }
func (d *Driver) readersName(name string) string { return readersNameFor(d.Config.Cluster, name) }
func (d *Driver) groupNames(name string) []string {
	return []string{d.groupName(name), d.readersName(name)}
}

// grantState is who holds a volume, as the array says.
type grantState struct {
	exists  bool     // the volume's group is there
	members []string // IQNs that may log in
	readers []string // IQNs that attached read-only
}

func (d *Driver) grantState(groups map[string]*datera.InitiatorGroup, name string) grantState {
	var state grantState
	if group := groups[d.groupName(name)]; group != nil {
		state.exists, state.members = true, group.Members
	}
	if group := groups[d.readersName(name)]; group != nil {
		state.readers = group.Members
	}
	return state
}

func (s grantState) readsOnly(iqn string) bool { return slices.Contains(s.readers, iqn) }

// all is members and readers; a crash may have left a reader that is no member.
func (s grantState) all() []string {
	all := slices.Clone(s.members)
	for _, iqn := range s.readers {
		if !slices.Contains(all, iqn) {
			all = append(all, iqn)
		}
	}
	return all
}

// rivals are the members with which iqn cannot share the volume: everybody else, but
// readers share with readers.
func (s grantState) rivals(iqn string, readOnly bool) []string {
	var rivals []string
	for _, member := range s.members {
		if member != iqn && !(readOnly && s.readsOnly(member)) {
			rivals = append(rivals, member)
		}
	}
	return rivals
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
// was fenced must not be let in for even a moment.
func (g grant) give(ctx context.Context, instance *datera.StorageInstance) error {
	referred := refersTo(instance, g.group())
	state, err := g.state(ctx, referred)
	if err != nil {
		return err
	}
	if rivals := state.rivals(g.iqn, g.volume.ReadOnly); len(rivals) > 0 {
		if state, err = g.settle(ctx, state, rivals, instance); err != nil {
			return err
		}
	}
	if err := g.noteAccess(ctx, state); err != nil {
		return err
	}
	if err := g.join(ctx, state); err != nil {
		return err
	}
	if referred {
		return nil
	}
	if err := g.array.AddInitiatorGroup(ctx, instance.Path, g.group()); err != nil {
		return fmt.Errorf("add initiator group %s to the ACL policy of volume %s on %s: %w", g.group(), g.volume.AppInstance, g.array.Server(), err)
	}
	return nil
}

func refersTo(instance *datera.StorageInstance, group string) bool {
	return slices.ContainsFunc(instance.ACL.InitiatorGroups, func(reference datera.Reference) bool {
		return reference.Path == "/initiator_groups/"+group
	})
}

// state reads the groups. A volume whose ACL policy does not refer to a group has most
// likely none: it is made at once, and read only when it turns out to be there.
func (g grant) state(ctx context.Context, referred bool) (grantState, error) {
	if !referred {
		group, err := g.array.CreateInitiatorGroup(ctx, g.group(), g.iqn)
		if err != nil {
			return grantState{}, fmt.Errorf("make initiator group %s on %s: %w", g.group(), g.array.Server(), err)
		}
		if slices.Equal(group.Members, []string{g.iqn}) && !g.volume.ReadOnly {
			return grantState{exists: true, members: group.Members}, nil
		}
	}
	groups, err := g.array.InitiatorGroups(ctx, g.group(), g.readers())
	if err != nil {
		return grantState{}, fmt.Errorf("ask %s who holds volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	return g.driver.grantState(groups, g.volume.Name), nil
}

// settle deals with rivals. Where Kubernetes guards the volume they stand. Where nobody
// does (attach mode none), a node without a session has gone without being able to say
// so: it loses the grant, which also keeps it from coming back.
func (g grant) settle(ctx context.Context, state grantState, rivals []string, instance *datera.StorageInstance) (grantState, error) {
	if g.driver.Config.Attach != AttachNone {
		return state, g.refusal(ctx, rivals)
	}
	for _, rival := range rivals {
		if slices.Contains(instance.ActiveInitiators, rival) {
			return state, g.refusal(ctx, []string{rival})
		}
		if err := g.driver.revoke(ctx, g.array, g.volume.Name, rival, state); err != nil {
			return state, err
		}
		g.driver.Log.WarnContext(ctx, "took the volume over from a node without a session",
			"volume", g.volume.AppInstance, "from", rival, "to", g.iqn)
		state.members = slices.DeleteFunc(slices.Clone(state.members), func(iqn string) bool { return iqn == rival })
	}
	return state, nil
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
	return fmt.Errorf("volume %s cannot be attached %s to node %s: %s holds it; it is free when the pod there is gone and the volume detached "+
		"(for a node that is dead: taint it with node.kubernetes.io/out-of-service)", g.volume.AppInstance, access, g.node, holder)
}

// noteAccess keeps the list of readers true before the member is added, so that nobody
// ever takes a writer for a reader.
func (g grant) noteAccess(ctx context.Context, state grantState) error {
	var err error
	switch noted := state.readsOnly(g.iqn); {
	case g.volume.ReadOnly && !noted:
		if _, err = g.array.CreateInitiatorGroup(ctx, g.readers()); err == nil {
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
	group, err := g.array.AddMember(ctx, g.group(), g.iqn)
	if err != nil {
		return fmt.Errorf("give node %s access to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
	}
	after := grantState{members: group.Members, readers: before.readers}
	rivals := after.rivals(g.iqn, g.volume.ReadOnly)
	if len(rivals) == 0 {
		return nil
	}
	refusal := g.refusal(ctx, rivals)
	if err := g.driver.revoke(ctx, g.array, g.volume.Name, g.iqn, grantState{members: after.members, readers: []string{g.iqn}}); err != nil {
		return errors.Join(refusal, err)
	}
	return refusal
}
