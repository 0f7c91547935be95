// Package access decides who may reach a volume. It knows the array's ACL policies and initiator groups, and of Kubernetes
// the names of clusters, PersistentVolumes and nodes; not its calls, and nothing of the host.
//
// A node has a claim on a volume while its IQN is in an initiator group to which the volume's ACL policy refers. All rests
// on one rule: a claim is published before the others are read. Who is not alone takes its own claim back, so of two nodes
// that come at once at most one stays, whatever the order of their requests. deploy/docs/access.md argues each race; package
// model below searches them.
package access

import (
	"context"
	"errors"
	"fmt"
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

// A Claim is what one node asks for, or has: to reach a volume, to write it or only to read.
type Claim struct {
	Array    Array
	Owner    Owner
	Volume   string // the app instance's name, for messages
	Node     string // its name in Kubernetes, for messages
	IQN      string
	ReadOnly bool
	// Evicts says that claims without a session may be taken away: in attach mode none nobody else does that.
	Evicts bool
	// Exempt are initiators, by IQN, and groups, by name, whom an administrator lets in beside the driver's nodes.
	Exempt []string
	// NodeOf is the node's name in that of a registered initiator.
	NodeOf func(initiatorName string) string
	// Note is called before the claim is added to a group, Erase when it is withdrawn, or stands and the caller is about to be
	// told: a claim that is noted is one of which no caller was told.
	Note, Erase func(volumeID, group string) error
}

const (
	// undoTime bounds the withdrawal of a claim when the call's own time is up.
	undoTime = 3 * time.Second
	// requestTime is how long a request that was given up may still be carried out. A claim is withdrawn after it.
	requestTime = time.Second
)

// Look finds out who is there before anything is changed, so that a node that was fenced is not let in for even a moment. It
// fails if the volume is in use.
func (c Claim) Look(ctx context.Context, volumeID string) (*View, error) {
	seen, err := Survey(ctx, c.Array, volumeID)
	if err != nil {
		return nil, c.failed("find out who may reach", err)
	}
	if seen.target.AccessControlMode == "allow_all" {
		return nil, fmt.Errorf("volume %s lets every initiator in (access_control_mode allow_all), so nothing keeps two nodes apart: set it to deny_all on the array", c.Volume)
	}
	standing, _ := c.against(seen)
	return seen, c.refuse(ctx, standing)
}

// Join adds the claim and looks again. When it fails the claim is withdrawn, or stays noted. A claim that stands already is
// left as it is.
func (c Claim) Join(ctx context.Context, seen *View) error {
	volumeID := seen.app.ID
	if !seen.lets(c) {
		if err := c.Note(volumeID, c.group(volumeID)); err != nil {
			return c.failed("note the claim on", err)
		}
		if err := c.publish(ctx, seen); err != nil {
			return errors.Join(err, c.withdraw(ctx, volumeID))
		}
	}
	return c.Erase(volumeID, c.group(volumeID))
}

func (c Claim) publish(ctx context.Context, seen *View) error {
	group, err := c.add(ctx, seen)
	if err != nil {
		return c.failed("add node "+c.Node+" to those who may reach", err)
	}
	if !seen.target.ACL.RefersTo(group.Name) {
		if err := c.Array.AddInitiatorGroup(ctx, seen.target.Path, group.Name); err != nil {
			return c.failed("add initiator group "+group.Name+" to the ACL policy of", err)
		}
	}
	if c.Evicts {
		return nil // it looks again when it has a session that others can see
	}
	_, _, err = c.lookAgain(ctx, seen.app.ID, groups{group.Name: group})
	return err
}

func (c Claim) add(ctx context.Context, seen *View) (*datera.InitiatorGroup, error) {
	name := c.group(seen.app.ID)
	if seen.groups[name] == nil {
		group, created, err := c.Array.CreateInitiatorGroup(ctx, name, c.IQN)
		if err != nil || created {
			return group, err
		}
	}
	return c.Array.AddMember(ctx, name, c.IQN)
}

// lookAgain finds who came since the first look, and whether the claim lets the node in by now.
func (c Claim) lookAgain(ctx context.Context, volumeID string, known groups) (*View, []Holder, error) {
	seen, err := look(ctx, c.Array, volumeID, known)
	if err != nil {
		return nil, nil, c.failed("find out who else came to", err)
	}
	if !seen.lets(c) {
		return nil, nil, fmt.Errorf("volume %s (%s) no longer lets node %s in on %s: another node evicted it, or the volume was taken offline or deleted meanwhile; Kubernetes repeats the call",
			c.Volume, seen.app.AdminState, c.Node, c.Array.Server())
	}
	standing, stale := c.against(seen)
	return seen, stale, c.refuse(ctx, standing)
}

// withdraw takes the claim back, of which no caller was told, also when the call's time is up: Kubernetes does not detach a volume
// whose attach failed.
func (c Claim) withdraw(ctx context.Context, volumeID string) error {
	late := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime+undoTime)
	defer cancel()
	if late { // a request that is still on its way would bring the claim back
		pause(ctx, requestTime)
	}
	if _, err := c.Array.RemoveMember(ctx, c.group(volumeID), c.IQN); err != nil {
		return c.failed("withdraw the claim of node "+c.Node+" on", err)
	}
	return c.Erase(volumeID, c.group(volumeID))
}

func (c Claim) group(volumeID string) string { return c.Owner.group(volumeID, c.ReadOnly) }

func (c Claim) failed(doing string, err error) error {
	return fmt.Errorf("%s volume %s on %s: %w", doing, c.Volume, c.Array.Server(), err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
