package driver

import (
	"context"
	"maps"
	"slices"
	"strings"

	"datera-flexvolume/datera"
)

// cutArray is the array as one host's calls reach it.
type cutArray struct {
	*world
	host *cutHost
}

func (a cutArray) Server() string { return "http://tlx170.tlx.daterainc.com:7717" }

const (
	volumeUUID      = "f58fe461-a60d-4c9d-a466-8d80c5048d07"
	appInstanceUUID = "c7a5e0e1-9f6d-4f2a-8f64-6b0c9f1d2a37"
)

func (a cutArray) AppInstance(context.Context, string) (*datera.AppInstance, error) {
	return step(a.host, "read the volume", func() (*datera.AppInstance, error) {
		if !a.made {
			return nil, datera.ErrNotFound
		}
		return a.appInstance(), nil
	})
}

func (w *world) appInstance() *datera.AppInstance {
	instance := datera.StorageInstance{Path: "/si", Name: "storage-1", OpState: datera.OpStateAvailable, AccessControlMode: denyAll}
	instance.Access.IPs, instance.Access.IQN = []string{"10.9.0.1"}, "iqn.2013-05.com.daterainc:tc:01:sn:321f0650b8ee3e86"
	instance.ACL.Initiators, instance.ACL.InitiatorGroups, instance.ActiveInitiators = []datera.Reference{}, []datera.Reference{}, []string{}
	for _, group := range w.acl {
		instance.ACL.InitiatorGroups = append(instance.ACL.InitiatorGroups, datera.Reference{Path: "/initiator_groups/" + group})
	}
	for iqn := range w.active {
		instance.ActiveInitiators = append(instance.ActiveInitiators, iqn)
	}
	volume := datera.Volume{Path: "/volume", Name: "volume-1", UUID: volumeUUID, SizeGiB: w.sizeGiB, LUN: new(int)}
	if len(w.content) > 0 {
		volume.CapacityInUseGiB = 1
	}
	instance.Volumes = []datera.Volume{volume}
	return &datera.AppInstance{ID: appInstanceUUID, Name: "kube-pv-datera-0", Descr: w.descr, AdminState: datera.AdminOnline, StorageInstances: []datera.StorageInstance{instance}}
}

func (a cutArray) CreateAppInstance(_ context.Context, request datera.AppInstanceRequest) (ai *datera.AppInstance, created bool, err error) {
	ai, err = step(a.host, "make the volume", func() (*datera.AppInstance, error) {
		a.made, a.descr, a.sizeGiB = true, request.Descr, request.SizeGiB
		return a.appInstance(), nil
	})
	return ai, err == nil, err
}

func (a cutArray) ResizeVolume(_ context.Context, _ string, sizeGiB int64) (*datera.Volume, error) {
	return step(a.host, "grow the volume", func() (*datera.Volume, error) {
		a.sizeGiB = sizeGiB
		return &datera.Volume{}, nil
	})
}

func (a cutArray) Metadata(context.Context, string) (map[string]string, error) {
	return step(a.host, "read metadata", func() (map[string]string, error) { return a.metadata, nil })
}

func (a cutArray) SetMetadata(_ context.Context, _ string, pairs map[string]string) error {
	return step0(a.host, "set metadata", func() error {
		maps.Copy(a.metadata, pairs)
		return nil
	})
}

func (a cutArray) AddInitiatorGroup(_ context.Context, _, group string) error {
	return step0(a.host, "refer to the group", func() error {
		if !slices.Contains(a.acl, group) {
			a.acl = append(a.acl, group)
		}
		return nil
	})
}

func (a cutArray) InitiatorByName(_ context.Context, name string) (*datera.Initiator, error) {
	return step(a.host, "find the initiator", func() (*datera.Initiator, error) {
		for iqn, known := range a.initiators {
			if known == name {
				return &datera.Initiator{ID: iqn, Name: name}, nil
			}
		}
		return nil, datera.ErrNotFound
	})
}

func (a cutArray) Initiator(_ context.Context, iqn string) (*datera.Initiator, error) {
	return step(a.host, "read the initiator", func() (*datera.Initiator, error) {
		if name, known := a.initiators[iqn]; known {
			return &datera.Initiator{ID: iqn, Name: name}, nil
		}
		return nil, datera.ErrNotFound
	})
}

func (a cutArray) RegisterInitiator(_ context.Context, iqn, name string) (*datera.Initiator, error) {
	return step(a.host, "register the initiator", func() (*datera.Initiator, error) {
		a.initiators[iqn] = name
		return &datera.Initiator{ID: iqn, Name: name}, nil
	})
}

func (a cutArray) InitiatorGroup(_ context.Context, name string) (*datera.InitiatorGroup, error) {
	return step(a.host, "read a group", func() (*datera.InitiatorGroup, error) {
		if _, exists := a.groups[name]; !exists {
			return nil, datera.ErrNotFound
		}
		return a.group(name), nil
	})
}

func (a cutArray) InitiatorGroupsContaining(_ context.Context, part string) ([]datera.InitiatorGroup, error) {
	return step(a.host, "list groups", func() ([]datera.InitiatorGroup, error) {
		var found []datera.InitiatorGroup
		for _, name := range slices.Sorted(maps.Keys(a.groups)) {
			if strings.Contains(name, part) {
				found = append(found, *a.group(name))
			}
		}
		return found, nil
	})
}

func (a cutArray) InitiatorGroupsOfAllTenants(ctx context.Context, part string) ([]datera.InitiatorGroup, error) {
	return a.InitiatorGroupsContaining(ctx, part)
}

func (w *world) group(name string) *datera.InitiatorGroup {
	return &datera.InitiatorGroup{Path: "/initiator_groups/" + name, Name: name, Tenant: "/root", Members: slices.Clone(w.groups[name])}
}

func (a cutArray) CreateInitiatorGroup(_ context.Context, name string, iqns ...string) (group *datera.InitiatorGroup, created bool, err error) {
	group, err = step(a.host, "make the group", func() (*datera.InitiatorGroup, error) {
		if _, exists := a.groups[name]; !exists {
			a.groups[name], created = slices.Clone(iqns), true
		}
		return a.group(name), nil
	})
	return group, created, err
}

func (a cutArray) AddMember(_ context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	return step(a.host, "add the member", func() (*datera.InitiatorGroup, error) {
		if !slices.Contains(a.groups[group], iqn) {
			a.groups[group] = append(a.groups[group], iqn)
		}
		return a.group(group), nil
	})
}

// RemoveMember also ends the sessions of the member: that is the fence.
func (a cutArray) RemoveMember(_ context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	return step(a.host, "remove the member", func() (*datera.InitiatorGroup, error) {
		a.groups[group] = slices.DeleteFunc(a.groups[group], func(member string) bool { return member == iqn })
		if !a.allows(iqn) {
			delete(a.active, iqn)
		}
		return a.group(group), nil
	})
}

// leftOnArray lists what the array still has of the volume, before it is deleted.
func (w *world) leftOnArray() []string {
	var left []string
	for group, members := range w.groups {
		for _, member := range members {
			left = append(left, "member "+strings.TrimPrefix(member, "iqn.1993-08.org.debian:01:")+" of "+group)
		}
	}
	for iqn := range w.active {
		left = append(left, "session "+iqn)
	}
	return left
}
