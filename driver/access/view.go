package access

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"datera-flexvolume/datera"
)

// A View is what a look saw of a volume: whom its ACL policy lets in, and who has a session.
type View struct {
	app    *datera.AppInstance
	target *datera.StorageInstance
	acl    datera.ACL // of all targets
	active []string   // IQNs with a session, of all targets
	groups groups
}

type groups map[string]*datera.InitiatorGroup // by name

// Survey looks at a volume, with all its own groups, referred to or not.
func Survey(ctx context.Context, array Array, volumeID string) (*View, error) {
	return survey(ctx, array, volumeID, false)
}

func survey(ctx context.Context, array Array, volumeID string, membersLast bool) (*View, error) {
	found, err := array.InitiatorGroupsContaining(ctx, volumePart(volumeID))
	if err != nil {
		return nil, err
	}
	known := groups{}
	for i, group := range found {
		if Grants(group.Name) != "" {
			known[group.Name] = &found[i]
		}
	}
	return look(ctx, array, volumeID, known, membersLast)
}

// look reads the app instance, by its UUID, and the groups to which its policy refers, but those that are known already. Sessions
// are read after members, as an array may end them late. Where claims are evicted, members are the last: its own may be, too.
func look(ctx context.Context, array Array, volumeID string, known groups, membersLast bool) (*View, error) {
	for {
		app, err := array.AppInstance(ctx, volumeID)
		if err != nil {
			return nil, err
		}
		seen, err := newView(app, known)
		if err != nil {
			return nil, err
		}
		unread := slices.DeleteFunc(seen.acl.Groups(), func(name string) bool { return known[name] != nil })
		for _, name := range unread {
			if known[name], err = array.InitiatorGroup(ctx, name); err != nil {
				return nil, err
			}
		}
		if len(unread) == 0 || membersLast {
			return seen, nil
		}
	}
}

func newView(app *datera.AppInstance, known groups) (*View, error) {
	target, err := app.StorageInstance()
	if err != nil {
		return nil, err
	}
	seen := &View{app: app, target: target, groups: known}
	for _, each := range app.StorageInstances { // an administrator may have added one
		if each.ACL.Initiators == nil || each.ACL.InitiatorGroups == nil {
			return nil, fmt.Errorf("the array does not say whom the ACL policy of %s lets in", each.Path)
		}
		seen.acl.Initiators = append(seen.acl.Initiators, each.ACL.Initiators...)
		seen.acl.InitiatorGroups = append(seen.acl.InitiatorGroups, each.ACL.InitiatorGroups...)
		seen.active = append(seen.active, each.ActiveInitiators...)
	}
	return seen, nil
}

// letBy is the group by which the volume, if it is online, lets the claim's node in: one of the owner's that is enough.
func (v *View) letBy(c Claim) (group string, in bool) {
	for _, group := range v.acl.Groups() {
		if v.app.AdminState == datera.AdminOnline && c.Owner.Lets(group, c.ReadOnly) && datera.ContainsIQN(v.groups[group].Members, c.IQN) {
			return group, true
		}
	}
	return "", false
}

// Groups are the names of the volume's own groups, of whichever owner: once the volume is gone they grant nothing.
func (v *View) Groups() []string {
	foreign := func(name string) bool { return Grants(name) == "" || !strings.Contains(name, volumePart(v.app.ID)) }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(v.groups)), foreign)
}

// A Holder is who may reach a volume, or has a session.
type Holder struct {
	IQN     string
	Group   string // that lets it in; "" for an entry of its own in the policy, or a session without a claim
	Claim   bool   // it is let in, or would be
	Session bool
}

// Holders lists all whom the policy lets in, or groups of which also says so, and who have a session, except the exempt.
func (v *View) Holders(exempt []string, also func(group string) bool) []Holder {
	var all []Holder
	for _, iqn := range v.acl.IQNs() {
		all = append(all, Holder{iqn, "", true, datera.ContainsIQN(v.active, iqn)})
	}
	for _, name := range slices.Sorted(maps.Keys(v.groups)) {
		if !v.acl.RefersTo(name) && (also == nil || !also(name)) {
			continue
		}
		for _, iqn := range v.groups[name].Members {
			all = append(all, Holder{iqn, name, true, datera.ContainsIQN(v.active, iqn)})
		}
	}
	for _, iqn := range v.active {
		if !slices.ContainsFunc(all, func(h Holder) bool { return datera.SameIQN(h.IQN, iqn) }) {
			all = append(all, Holder{iqn, "", false, true})
		}
	}
	return slices.DeleteFunc(all, func(h Holder) bool { return slices.Contains(exempt, h.Group) || datera.ContainsIQN(exempt, h.IQN) })
}
