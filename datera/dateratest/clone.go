package dateratest

import (
	"slices"
	"strings"

	"github.com/google/uuid"
)

// locate finds what a path like /app_instances/X/storage_instances/Y/volumes/Z/snapshots/T names, X being an id or a name.
func (c *call) locate(path string) (ai *appInstance, si *storageInstance, v *volume, s *snapshot, err error) {
	var steps []string
	if rest, ok := strings.CutPrefix(path, "/"); ok {
		steps = strings.Split(rest, "/")
	}
	kinds := []string{"app_instances", "storage_instances", "volumes", "snapshots"}
	if len(steps) == 4 && steps[2] == "snapshots" { // one of the whole app instance
		kinds = []string{"app_instances", "snapshots"}
	}
	if len(steps) == 0 || len(steps)%2 != 0 || len(steps) > 2*len(kinds) {
		return nil, nil, nil, nil, notFound(path)
	}
	for i := 0; i+1 < len(steps); i += 2 {
		found := steps[i] == kinds[i/2]
		switch {
		case !found:
		case kinds[i/2] == "app_instances":
			ai = c.findAppInstance(steps[i+1])
			found = ai != nil
		case kinds[i/2] == "storage_instances":
			si = ai.storage(steps[i+1])
			found = si != nil
		case kinds[i/2] == "volumes":
			v = si.volume(steps[i+1])
			found = v != nil
		case v != nil:
			s = findSnapshot(v.Snapshots, steps[i+1])
			found = s != nil
		default:
			s = findSnapshot(ai.Snapshots, steps[i+1])
			found = s != nil
		}
		if !found {
			return nil, nil, nil, nil, notFound(path)
		}
	}
	return ai, si, v, s, nil
}

// cloneAppInstance copies all volumes of another app instance.
func (c *call) cloneAppInstance(ai *appInstance, path string) error {
	from, si, _, s, err := c.locate(path)
	if err != nil {
		return err
	}
	if from == nil || si != nil || s != nil {
		return refused("clone_src %s is not the path of an app instance", path)
	}
	return c.cloneStorage(ai, from, from.path(), func(*storageInstance, *volume) (string, bool, error) { return "", true, nil })
}

func (c *call) cloneVolume(ai *appInstance, path string) error {
	from, si, v, s, err := c.locate(path)
	if err != nil {
		return err
	}
	if v == nil || s != nil {
		return refused("clone_volume_src %s is not the path of a volume", path)
	}
	return c.cloneStorage(ai, from, v.path(from, si), func(_ *storageInstance, other *volume) (string, bool, error) { return "", other == v, nil })
}

func (c *call) cloneSnapshot(ai *appInstance, path string) error {
	from, _, v, s, err := c.locate(path)
	if err != nil {
		return err
	}
	if s == nil {
		return refused("clone_snapshot_src %s is not the path of a snapshot", path)
	}
	return c.cloneStorage(ai, from, path, func(_ *storageInstance, other *volume) (string, bool, error) {
		part := findSnapshot(other.Snapshots, s.Stamp)
		if part == nil || v != nil && other != v {
			return "", false, nil
		}
		if part.CopyFrom != "" || part.Ready.state(c.at) != "available" {
			return "", false, conflict("snapshot %s is not available yet", path)
		}
		return c.data.snapshotFile(part), true, nil
	})
}

// cloneStorage copies the storage instances of another app instance with those volumes that pick takes, and from the
// file that it names. A clone has the source's properties and content, but its own identity and nobody in its ACL.
func (c *call) cloneStorage(ai, from *appInstance, source string, pick func(*storageInstance, *volume) (file string, take bool, err error)) error {
	for _, si := range from.Storage {
		twin := &storageInstance{Name: si.Name, UUID: uuid.NewString(), IQN: c.freshIQN(), AccessControl: ai.AccessControl, Service: si.Service,
			Pool: si.Pool, IPs: si.IPs, Port: si.Port, Auth: auth{Type: "none"}, Initiators: []string{}, Groups: []string{}, Metadata: entity{}}
		for _, v := range si.Volumes {
			file, take, err := pick(si, v)
			switch {
			case err != nil:
				return err
			case !take:
				continue
			case v.CopyFrom != "":
				return conflict("volume %s is still being copied from its source", v.path(from, si))
			}
			copied := &volume{Name: v.Name, UUID: uuid.NewString(), Size: v.Size, Replicas: v.Replicas, PlacementMode: v.PlacementMode,
				PlacementPolicy: v.PlacementPolicy, CapacityInUse: v.CapacityInUse, Performance: v.Performance, Snapshots: []*snapshot{},
				CopyFrom: firstOf(file, c.data.volumeFile(v))}
			twin.Volumes = append(twin.Volumes, copied)
		}
		if len(twin.Volumes) > 0 || len(si.Volumes) == 0 {
			c.setAdminState(twin, online)
			ai.Storage = append(ai.Storage, twin)
		}
	}
	ai.CloneSrc, ai.ClonedAt = source, c.readiness().At
	return nil
}

// refuseCopySource protects volumes that a clone or snapshot is still being copied from.
func (c *call) refuseCopySource(volumes ...*volume) error {
	for _, v := range volumes {
		files := []string{volumeFile(v)}
		for _, s := range v.Snapshots {
			files = append(files, snapshotFile(s))
		}
		if slices.ContainsFunc(files, c.copySource) {
			return conflict("volume %s is being cloned", v.Name)
		}
	}
	return nil
}

// copySource tells whether a copy from this backing file is under way.
func (s *Server) copySource(file string) bool {
	for v := range s.cluster.volumes() {
		if v.CopyFrom == file && v.CopyError == "" {
			return true
		}
		for _, s := range v.Snapshots {
			if s.CopyFrom == file && s.CopyError == "" {
				return true
			}
		}
	}
	return false
}
