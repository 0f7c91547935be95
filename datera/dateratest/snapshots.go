package dateratest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// holder is what snapshots and their policies hang on: a volume, or an app instance for all its volumes.
type holder struct {
	path      string
	ai        *appInstance // nil for a template, which has policies only
	volumes   []*volume
	snapshots *[]*snapshot
	policies  *[]snapshotPolicy
}

func (c *call) holder() (holder, error) {
	switch {
	case c.variable("vt") != "":
		v, at, err := c.volumeTemplate()
		if err != nil {
			return holder{}, err
		}
		return holder{path: at, policies: &v.SnapshotPolicies}, nil
	case c.variable("template") != "":
		t, err := c.template()
		if err != nil {
			return holder{}, err
		}
		return holder{path: t.path(), policies: &t.SnapshotPolicies}, nil
	case c.variable("vol") != "":
		ai, si, v, err := c.volume()
		if err != nil {
			return holder{}, err
		}
		return holder{v.path(ai, si), ai, []*volume{v}, &v.Snapshots, &v.SnapshotPolicies}, nil
	}
	ai, err := c.appInstance()
	if err != nil {
		return holder{}, err
	}
	return holder{ai.path(), ai, ai.volumes(), &ai.Snapshots, &ai.SnapshotPolicies}, nil
}

func (ai *appInstance) volumes() []*volume {
	var all []*volume
	for _, si := range ai.Storage {
		all = append(all, si.Volumes...)
	}
	return all
}

func viewSnapshots(c *call, holder string, snapshots []*snapshot) []entity {
	items := make([]entity, 0, len(snapshots))
	for _, s := range snapshots {
		items = append(items, c.viewSnapshot(holder, s))
	}
	return items
}

func (c *call) viewSnapshot(holder string, s *snapshot) entity {
	state := s.Ready.state(c.at)
	switch {
	case s.CopyError != "":
		state = "failed"
	case s.CopyFrom != "":
		state = "unavailable"
	}
	out := entity{"path": holder + "/snapshots/" + s.Stamp, "uuid": s.UUID, "utc_ts": s.Stamp, "timestamp": s.Stamp, "op_state": state}
	if c.dialect.api >= v22 {
		out["ts_version"], out["version"], out["local"], out["remote_providers"] = "", "", true, []any{}
		out["logical_size"], out["physical_size"], out["exclusive_size"], out["effective_size"] = s.Size, s.Size, 0, s.Size
	}
	return out
}

func listSnapshots(c *call) (any, error) {
	h, err := c.holder()
	if err != nil {
		return nil, err
	}
	return c.page(viewSnapshots(c, h.path, *h.snapshots))
}

func findSnapshot(snapshots []*snapshot, stamp string) *snapshot {
	for _, s := range snapshots {
		if s.Stamp == stamp {
			return s
		}
	}
	return nil
}

func (c *call) snapshot() (holder, *snapshot, error) {
	h, err := c.holder()
	if err != nil {
		return h, nil, err
	}
	if s := findSnapshot(*h.snapshots, c.variable("ts")); s != nil {
		return h, s, nil
	}
	return h, nil, notFound(h.path + "/snapshots/" + c.variable("ts"))
}

func readSnapshot(c *call) (any, error) {
	h, s, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	return c.viewSnapshot(h.path, s), nil
}

// createSnapshot takes a snapshot of a volume, or one of each volume of an app instance with a common time stamp.
func createSnapshot(c *call) (any, error) {
	h, err := c.holder()
	if err != nil {
		return nil, err
	}
	var in struct {
		UUID string `json:"uuid"`
	}
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	setDefault(&in.UUID, uuid.NewString())
	for _, s := range *h.snapshots {
		if s.UUID == in.UUID {
			return nil, duplicateSnapshot(in.UUID)
		}
	}
	for _, v := range h.volumes {
		if v.CopyFrom != "" {
			return nil, conflict("volume %s is still being copied from its source", v.Name)
		}
	}
	s := &snapshot{ID: uuid.NewString(), UUID: in.UUID, Stamp: c.freshStamp(h), Ready: c.readiness()}
	for _, v := range h.volumes {
		s.Size += v.sizeAt(c.at)
	}
	if h.snapshots == &h.ai.Snapshots {
		for _, v := range h.volumes {
			part := &snapshot{ID: uuid.NewString(), UUID: uuid.NewString(), Stamp: s.Stamp, Size: v.sizeAt(c.at), Ready: s.Ready, CopyFrom: c.data.volumeFile(v)}
			v.Snapshots = append(v.Snapshots, part)
		}
	} else {
		s.CopyFrom = c.data.volumeFile(h.volumes[0])
	}
	*h.snapshots = append(*h.snapshots, s)
	return c.viewSnapshot(h.path, s), nil
}

// freshStamp is "seconds.nanoseconds" without trailing zeros, unique among the holder's snapshots and its volumes'.
func (c *call) freshStamp(h holder) string {
	for at := c.at; ; at = at.Add(time.Nanosecond) {
		stamp := formatStamp(at)
		taken := findSnapshot(*h.snapshots, stamp) != nil
		for _, v := range h.volumes {
			taken = taken || findSnapshot(v.Snapshots, stamp) != nil
		}
		if !taken {
			return stamp
		}
	}
}

func formatStamp(t time.Time) string {
	s := strings.TrimRight(fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()), "0")
	if strings.HasSuffix(s, ".") {
		return s + "0"
	}
	return s
}

func deleteSnapshot(c *call) (any, error) {
	h, s, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	gone := []*snapshot{s}
	if h.snapshots == &h.ai.Snapshots {
		for _, v := range h.volumes {
			if part := findSnapshot(v.Snapshots, s.Stamp); part != nil {
				gone = append(gone, part)
			}
		}
	}
	for _, g := range gone {
		if c.copySource(snapshotFile(g)) {
			return nil, conflict("snapshot %s is being cloned or restored", s.Stamp)
		}
	}
	isGone := func(s *snapshot) bool { return slices.Contains(gone, s) }
	view := c.viewSnapshot(h.path, s)
	*h.snapshots = slices.DeleteFunc(*h.snapshots, isGone)
	for _, v := range h.volumes {
		v.Snapshots = slices.DeleteFunc(v.Snapshots, isGone)
	}
	return view, nil
}

// restoreVolume takes a volume back to one of its snapshots, in place.
func (c *call) restoreVolume(ai *appInstance, si *storageInstance, v *volume, stamp string) error {
	s := findSnapshot(v.Snapshots, stamp)
	switch {
	case si.AdminState == online:
		return refused("%s is online: set it offline before a snapshot is restored", si.path(ai))
	case s == nil:
		return notFound(v.path(ai, si) + "/snapshots/" + stamp)
	case v.CopyFrom != "":
		return conflict("volume %s is still being copied from its source", v.Name)
	case s.CopyFrom != "":
		return conflict("snapshot %s is not available yet", stamp)
	}
	v.RestorePoint = stamp
	v.CopyFrom, v.CopyError = c.data.snapshotFile(s), ""
	return nil
}

// restoreAppInstance restores each volume that has the snapshot.
func (c *call) restoreAppInstance(ai *appInstance, stamp string) error {
	if ai.AdminState == online {
		return refused("%s is online: set it offline before a snapshot is restored", ai.path())
	}
	found := findSnapshot(ai.Snapshots, stamp) != nil
	for _, si := range ai.Storage {
		for _, v := range si.Volumes {
			if findSnapshot(v.Snapshots, stamp) == nil {
				continue
			}
			found = true
			if err := c.restoreVolume(ai, si, v, stamp); err != nil {
				return err
			}
		}
	}
	if !found {
		return notFound(ai.path() + "/snapshots/" + stamp)
	}
	ai.RestorePoint = stamp
	return nil
}

func viewPolicies(holder string, policies []snapshotPolicy) []entity {
	items := make([]entity, 0, len(policies))
	for _, p := range policies {
		items = append(items, viewPolicy(holder, p))
	}
	return items
}

func viewPolicy(holder string, p snapshotPolicy) entity {
	out := entity{"path": holder + "/snapshot_policies/" + p.Name, "name": p.Name, "interval": p.Interval, "retention_count": p.Retention}
	if p.StartTime != "" {
		out["start_time"] = p.StartTime
	}
	return out
}

func listSnapshotPolicies(c *call) (any, error) {
	h, err := c.holder()
	if err != nil {
		return nil, err
	}
	return c.page(viewPolicies(h.path, *h.policies))
}

func createSnapshotPolicy(c *call) (any, error) {
	h, err := c.holder()
	if err != nil {
		return nil, err
	}
	var in snapshotPolicy
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(*h.policies, func(p snapshotPolicy) bool { return p.Name == in.Name }) {
		return nil, conflict("snapshot policy %s exists already", in.Name)
	}
	*h.policies = append(*h.policies, in)
	return viewPolicy(h.path, in), nil
}

func (c *call) snapshotPolicy() (holder, int, error) {
	h, err := c.holder()
	if err != nil {
		return h, 0, err
	}
	i := slices.IndexFunc(*h.policies, func(p snapshotPolicy) bool { return p.Name == c.variable("name") })
	if i < 0 {
		return h, 0, notFound(h.path + "/snapshot_policies/" + c.variable("name"))
	}
	return h, i, nil
}

func readSnapshotPolicy(c *call) (any, error) {
	h, i, err := c.snapshotPolicy()
	if err != nil {
		return nil, err
	}
	return viewPolicy(h.path, (*h.policies)[i]), nil
}

func updateSnapshotPolicy(c *call) (any, error) {
	h, i, err := c.snapshotPolicy()
	if err != nil {
		return nil, err
	}
	if err := c.bind(&(*h.policies)[i]); err != nil {
		return nil, err
	}
	return viewPolicy(h.path, (*h.policies)[i]), nil
}

func deleteSnapshotPolicy(c *call) (any, error) {
	h, i, err := c.snapshotPolicy()
	if err != nil {
		return nil, err
	}
	view := viewPolicy(h.path, (*h.policies)[i])
	*h.policies = slices.Delete(*h.policies, i, i+1)
	return view, nil
}
