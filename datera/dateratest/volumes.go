package dateratest

import (
	"slices"

	"github.com/google/uuid"
)

type volumeInput struct {
	Name             string           `json:"name"`
	Size             int              `json:"size"`
	Replicas         int              `json:"replica_count"`
	PlacementMode    string           `json:"placement_mode"`
	PlacementPolicy  *ref             `json:"placement_policy"`
	SnapshotPolicies []snapshotPolicy `json:"snapshot_policies"`
	Performance      *performance     `json:"performance_policy"`
	RestorePoint     string           `json:"restore_point"`
}

func (v *volume) path(ai *appInstance, si *storageInstance) string {
	return si.path(ai) + "/volumes/" + v.Name
}

func (si *storageInstance) volume(name string) *volume {
	for _, v := range si.Volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// volume is the volume that the path of the call names.
func (c *call) volume() (*appInstance, *storageInstance, *volume, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, nil, nil, err
	}
	if v := si.volume(c.variable("vol")); v != nil {
		return ai, si, v, nil
	}
	return nil, nil, nil, notFound(si.path(ai) + "/volumes/" + c.variable("vol"))
}

func (c *call) viewVolume(ai *appInstance, si *storageInstance, v *volume, index int) entity {
	path := v.path(ai, si)
	state, causes := c.stateOf(si)
	size := v.sizeAt(c.at)
	out := entity{
		"path": path, "name": v.Name, "uuid": v.UUID, "size": size, "capacity_in_use": c.capacityInUse(v), "replica_count": v.Replicas,
		"placement_mode": v.PlacementMode, "op_state": state, "availability_state": "available", "health": "ok",
		"causes": causes, "deployment_state": "deployed", "restore_point": v.RestorePoint, "snapshots": viewSnapshots(c, path, v.Snapshots),
		"snapshot_policies": viewPolicies(path, v.SnapshotPolicies), "active_storage_nodes": c.activeNodes(si.AdminState),
	}
	if c.at.Before(v.ResizedAt) { // nothing is said about a volume that is idle
		out["op_status"] = "volume_resize_in_progress"
	}
	if v.Performance != nil {
		out["performance_policy"] = viewPerformance(path, v.Performance)
	}
	if c.dialect.api >= v22 {
		out["logical_size"], out["physical_size"], out["effective_size"], out["exclusive_size"] = size, size, size, size
		if c.dialect.new33 {
			out["placement_policy"] = resolved(c, "/placement_policies", v.PlacementPolicy, placements)
		}
	}
	if first := c.data.firstLUN(); first != 0 { // a real cluster begins at 0 and does not say so
		out["lun"] = first + index
	}
	return out
}

func listVolumes(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	items := make([]entity, 0, len(si.Volumes))
	for i, v := range si.Volumes {
		items = append(items, c.viewVolume(ai, si, v, i))
	}
	return c.page(items)
}

func readVolume(c *call) (any, error) {
	ai, si, v, err := c.volume()
	if err != nil {
		return nil, err
	}
	return c.viewVolume(ai, si, v, slices.Index(si.Volumes, v)), nil
}

func createVolume(c *call) (any, error) {
	ai, si, err := c.storage()
	if err != nil {
		return nil, err
	}
	var in volumeInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if err := c.addVolume(si, in); err != nil {
		return nil, err
	}
	last := len(si.Volumes) - 1
	return c.viewVolume(ai, si, si.Volumes[last], last), nil
}

func (c *call) addVolume(si *storageInstance, in volumeInput) error {
	if si.volume(in.Name) != nil {
		return conflict("volume %s exists already in storage instance %s", in.Name, si.Name)
	}
	v := &volume{Name: in.Name, UUID: uuid.NewString(), Size: in.Size, Replicas: in.Replicas, PlacementMode: in.PlacementMode,
		PlacementPolicy: "/placement_policies/default", SnapshotPolicies: in.SnapshotPolicies, Snapshots: []*snapshot{}}
	if v.Replicas == 0 {
		v.Replicas = 3
	}
	setDefault(&v.PlacementMode, "hybrid")
	if err := c.takePlacement(v, in.PlacementPolicy); err != nil {
		return err
	}
	if in.Performance != nil && *in.Performance != (performance{}) { // an empty policy is none: the vendor's CSI driver sends it
		v.Performance = in.Performance
	}
	si.Volumes = append(si.Volumes, v)
	return nil
}

func (c *call) takePlacement(v *volume, r *ref) error {
	if r == nil || r.Path == "" {
		return nil
	}
	if _, _, ok := follow(c, "/placement_policies", r.Path, placements); !ok {
		return notFound(r.Path)
	}
	v.PlacementPolicy = r.Path
	return nil
}

func updateVolume(c *call) (any, error) {
	ai, si, v, err := c.volume()
	if err != nil {
		return nil, err
	}
	var in volumeInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	switch {
	case in.Size != 0 && in.Size < v.Size:
		return nil, refused("volume %s cannot shrink from %d to %d GiB", v.path(ai, si), v.Size, in.Size)
	case in.Replicas != 0 && in.Replicas < v.Replicas:
		return nil, refused("replica_count of %s can only be raised, not from %d to %d", v.path(ai, si), v.Replicas, in.Replicas)
	}
	if err := c.takePlacement(v, in.PlacementPolicy); err != nil {
		return nil, err
	}
	if in.RestorePoint != "" {
		if err := c.restoreVolume(ai, si, v, in.RestorePoint); err != nil {
			return nil, err
		}
	}
	if in.Size > v.Size {
		v.OldSize, v.Size, v.ResizedAt = v.sizeAt(c.at), in.Size, c.readiness().At
	}
	if in.Replicas != 0 {
		v.Replicas = in.Replicas
	}
	setIf(&v.PlacementMode, in.PlacementMode)
	return c.viewVolume(ai, si, v, slices.Index(si.Volumes, v)), nil
}

func deleteVolume(c *call) (any, error) {
	ai, si, v, err := c.volume()
	if err != nil {
		return nil, err
	}
	if si.AdminState == online {
		return nil, refused("storage instance %s is online: set it offline before its volume is deleted", si.path(ai))
	}
	if err := c.refuseCopySource(v); err != nil {
		return nil, err
	}
	view := c.viewVolume(ai, si, v, slices.Index(si.Volumes, v))
	si.Volumes = slices.DeleteFunc(si.Volumes, func(other *volume) bool { return other == v })
	return view, nil
}

func (s *Server) volumeByUUID(id string) *volume {
	for v := range s.cluster.volumes() {
		if v.UUID == id {
			return v
		}
	}
	return nil
}
