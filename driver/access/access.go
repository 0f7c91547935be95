// Package access decides who may reach a volume. It knows the array's ACL policies and initiator groups, and the names of
// clusters, PersistentVolumes and nodes, but neither Kubernetes' calls nor the host.
//
// A node has a claim on a volume while its IQN is in an initiator group to which the volume's ACL policy refers. All rests
// on one rule: a claim is published before the others are read. A node that is not alone withdraws its claim, so of two that
// come at once at most one stays, in any order of their requests. deploy/docs/access.md argues each race.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"datera-flexvolume/datera"
)

// Array is what this package asks of the storage cluster.
type Array interface {
	Server() string
	AppInstance(ctx context.Context, nameOrID string) (*datera.AppInstance, error)
	AddInitiatorGroup(ctx context.Context, storageInstancePath, group string) error
	Initiator(ctx context.Context, iqn string) (*datera.Initiator, error)
	InitiatorGroup(ctx context.Context, name string) (*datera.InitiatorGroup, error)
	InitiatorGroupsContaining(ctx context.Context, part string) ([]datera.InitiatorGroup, error)
	CreateInitiatorGroup(ctx context.Context, name string, iqns ...string) (group *datera.InitiatorGroup, created bool, err error)
	AddMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error)
	RemoveMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error)
}

// A Claim is what one node asks for, or has: to write a volume, or only to read it.
type Claim struct {
	Array    Array
	Owner    Owner
	Volume   string // the app instance's name, for messages
	Node     string // its name in Kubernetes, for messages
	IQN      string
	ReadOnly bool
	Evicts   bool                              // takes claims without a session away: in attach mode none no controller does
	Exempt   []string                          // initiators, by IQN, and groups, by name, let in beside the driver's nodes
	NodeOf   func(initiatorName string) string // a node's name in that of its registered initiator
	// Note is called before the claim is added to a group, Erase when it is withdrawn, or before its caller is told that it
	// stands: of a claim that is noted no caller was told.
	Note, Erase func(volumeID, group string) error
}

const undoTime = 3 * time.Second // bounds the withdrawal of a claim when the call's own time is up

// Look finds out who is there before anything is changed, so that a node that was fenced is not let in for even a moment. It
// fails if the volume is in use. app was read before; Join relies on that.
func (c Claim) Look(ctx context.Context, app *datera.AppInstance) (*View, error) {
	seen, err := survey(ctx, c.Array, app.ID, c.Evicts)
	switch {
	case err != nil:
		return nil, c.failed("find out who may reach", err)
	case seen.target.AccessControlMode == "allow_all":
		return nil, fmt.Errorf("volume %s lets every initiator in, so nothing keeps two nodes apart: set access_control_mode to deny_all on the array", c.Volume)
	case seen.app.AdminState != datera.AdminOnline:
		return nil, fmt.Errorf("volume %s is %s on %s: another call takes it offline, perhaps to delete it; Kubernetes repeats this one", c.Volume, seen.app.AdminState, c.Array.Server())
	}
	standing, _ := c.against(seen)
	return seen, c.refuse(ctx, standing)
}

// Join adds the claim and looks again. When it fails the claim is withdrawn, or stays noted.
//
// A claim stands already if the policy referred to its group in app, which was read before the members: what was published
// before the others were read is seen by each of them that came later.
func (c Claim) Join(ctx context.Context, app *datera.AppInstance, seen *View) error {
	target, err := app.StorageInstance()
	if err != nil {
		return err
	}
	if group, in := seen.letBy(c); !in || !target.ACL.RefersTo(group) {
		if err := c.Note(app.ID, c.group(app.ID)); err != nil {
			return c.failed("note the claim on", err)
		}
		if err := c.publish(ctx, seen); err != nil {
			return errors.Join(err, c.withdraw(ctx, app.ID))
		}
	}
	return c.Erase(app.ID, c.group(app.ID))
}

func (c Claim) publish(ctx context.Context, seen *View) error {
	name, created := c.group(seen.app.ID), false
	group, err := seen.groups[name], error(nil)
	if group == nil {
		group, created, err = c.Array.CreateInitiatorGroup(ctx, name, c.IQN)
	}
	if err == nil && !created {
		group, err = c.Array.AddMember(ctx, name, c.IQN)
	}
	if err != nil {
		return c.failed("add node "+c.Node+" to those who may reach", err)
	}
	if !seen.target.ACL.RefersTo(name) {
		if err := c.Array.AddInitiatorGroup(ctx, seen.target.Path, name); err != nil {
			return c.failed("add initiator group "+name+" to the ACL policy of", err)
		}
	}
	if c.Evicts {
		return nil // it looks again when it has a session that others can see
	}
	_, err = c.lookAgain(ctx, seen.app.ID, groups{name: group})
	return err
}

// lookAgain finds who came since the first look, and whether the claim lets the node in by now. It returns who is stale.
func (c Claim) lookAgain(ctx context.Context, volumeID string, known groups) ([]Holder, error) {
	seen, err := look(ctx, c.Array, volumeID, known, c.Evicts)
	if err != nil {
		return nil, c.failed("find out who else came to", err)
	}
	if _, in := seen.letBy(c); !in {
		return nil, fmt.Errorf("volume %s (%s) no longer lets node %s in on %s: another node evicted it, or the volume was taken offline or deleted meanwhile; Kubernetes repeats the call",
			c.Volume, seen.app.AdminState, c.Node, c.Array.Server())
	}
	standing, stale := c.against(seen)
	return stale, c.refuse(ctx, standing)
}

// In attach mode none no controller guards a volume, and a node that is gone cannot say so. Who wants the volume joins, logs
// in without a LUN, and only then looks again: who evicts has a session, so of two nodes that meet at least one sees the
// other, in any order and at any speed.

// watchTime is the margin for a line that is broken for a moment, and for an array that ends or shows sessions late.
const watchTime, watchPause = 5 * time.Second, time.Second

// Confirm makes sure, between login and scan, that the node is alone, and evicts who has no session. Where it fails the node
// logs out and then leaves.
func (c Claim) Confirm(ctx context.Context, volumeID string) error {
	stale, err := c.lookAgain(ctx, volumeID, groups{})
	if err != nil || len(stale) == 0 {
		return err
	}
	for watched := time.Duration(0); watched < watchTime; watched += watchPause {
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return c.failed("watch for sessions on", context.Cause(ctx))
		}
		still, err := c.lookAgain(ctx, volumeID, groups{})
		if err != nil {
			return err
		}
		if came := slices.DeleteFunc(slices.Clone(still), func(h Holder) bool { return slices.Contains(stale, h) }); len(came) > 0 {
			return c.refuse(ctx, came)
		}
		stale = still
	}
	for _, h := range stale {
		if _, err := c.Array.RemoveMember(ctx, h.Group, h.IQN); err != nil {
			return c.failed("evict "+h.IQN+", which has no session, from", err)
		}
	}
	left, err := c.lookAgain(ctx, volumeID, groups{})
	return errors.Join(err, c.refuse(ctx, left))
}

// withdraw takes the claim back, also when the call's time is up: Kubernetes detaches no volume whose attach failed.
func (c Claim) withdraw(ctx context.Context, volumeID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if _, err := c.Array.RemoveMember(ctx, c.group(volumeID), c.IQN); err != nil {
		return c.failed("withdraw the claim of node "+c.Node+" on", err)
	}
	return c.Erase(volumeID, c.group(volumeID))
}

func (c Claim) group(volumeID string) string { return c.Owner.group(volumeID, c.ReadOnly) }

func (c Claim) failed(doing string, err error) error {
	return fmt.Errorf("%s volume %s on %s: %w", doing, c.Volume, c.Array.Server(), err)
}
