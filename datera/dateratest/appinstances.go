package dateratest

import (
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
)

type ref struct {
	Path string `json:"path"`
}

type appInstanceInput struct {
	Name             *string                `json:"name"`
	Descr            *string                `json:"descr"`
	UUID             string                 `json:"uuid"`
	CreateMode       string                 `json:"create_mode"`
	AdminState       string                 `json:"admin_state"`
	AccessControl    string                 `json:"access_control_mode"`
	RepairPriority   string                 `json:"repair_priority"`
	RestorePoint     string                 `json:"restore_point"`
	Storage          []storageInstanceInput `json:"storage_instances"`
	SnapshotPolicies *[]snapshotPolicy      `json:"snapshot_policies"`
	Template         *ref                   `json:"app_template"`
	CloneSrc         *ref                   `json:"clone_src"`
	CloneVolumeSrc   *ref                   `json:"clone_volume_src"`
	CloneSnapshotSrc *ref                   `json:"clone_snapshot_src"`
	Override         templateOverride       `json:"template_override"`
}

func (ai *appInstance) path() string { return "/app_instances/" + ai.ID }

// findAppInstance takes an id or a name, as every path does.
func (c *call) findAppInstance(idOrName string) *appInstance {
	if ai := c.tenant.AppInstances[idOrName]; ai != nil {
		return ai
	}
	for _, ai := range c.tenant.AppInstances {
		if ai.Name == idOrName {
			return ai
		}
	}
	return nil
}

// appInstance is the one that the path of the call names.
func (c *call) appInstance() (*appInstance, error) {
	if ai := c.findAppInstance(c.variable("ai")); ai != nil {
		return ai, nil
	}
	return nil, notFound("/app_instances/" + c.variable("ai"))
}

func (c *call) viewAppInstance(ai *appInstance) entity {
	storage := make([]entity, 0, len(ai.Storage))
	for _, si := range ai.Storage {
		storage = append(storage, c.viewStorage(ai, si))
	}
	out := entity{
		"tenant": c.tenant.Path, "path": ai.path(), "name": ai.Name, "id": ai.ID, "uuid": ai.UUID, "descr": ai.Descr, "health": "ok",
		"causes": []string{}, "admin_state": ai.AdminState, "create_mode": ai.CreateMode, "access_control_mode": ai.AccessControl,
		"deployment_state": "deployed", "app_template": resolved(c, "/app_templates", ai.Template, templates), "restore_point": ai.RestorePoint,
		"snapshots": viewSnapshots(c, ai.path(), ai.Snapshots), "snapshot_policies": viewPolicies(ai.path(), ai.SnapshotPolicies),
		"storage_instances": storage,
	}
	if ai.CloneSrc != "" {
		out["clone_src"] = ref{ai.CloneSrc}
	}
	if c.at.Before(ai.ClonedAt) || ai.copying() {
		out["op_state"] = "cloning"
	}
	if c.dialect.api >= v22 {
		if ai.UUID == noUUID {
			out["uuid"] = ai.ID
		}
		out["repair_priority"], out["storage_pool"] = ai.RepairPriority, []any{}
		out["restore_progress"], out["remote_restore_progress"], out["remote_restore_percentage"] = "", "", 0
		out["operation_path"] = ""
		if ai.TemplateOverride != nil {
			out["template_override"] = ai.TemplateOverride
		}
	}
	return out
}

// copying tells whether the content of a clone or of a restored volume is still on its way.
func (ai *appInstance) copying() bool {
	for _, si := range ai.Storage {
		for _, v := range si.Volumes {
			if v.CopyFrom != "" && v.CopyError == "" {
				return true
			}
		}
	}
	return false
}

func listAppInstances(c *call) (any, error) {
	var items []entity
	for _, one := range c.scope() {
		byName := slices.SortedFunc(maps.Values(one.tenant.AppInstances), func(a, b *appInstance) int { return strings.Compare(a.Name, b.Name) })
		for _, ai := range byName {
			items = append(items, one.viewAppInstance(ai))
		}
	}
	return c.page(items)
}

func readAppInstance(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	return c.viewAppInstance(ai), nil
}

func createAppInstance(c *call) (any, error) {
	var in appInstanceInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if existing := c.findAppInstance(*in.Name); existing != nil {
		return nil, conflict("app instance %s exists already at %s", *in.Name, existing.path())
	}
	ai := &appInstance{ID: uuid.NewString(), UUID: in.UUID, Name: *in.Name, CreateMode: in.CreateMode, AdminState: online,
		AccessControl: in.AccessControl, RepairPriority: in.RepairPriority, SnapshotPolicies: valueOf(in.SnapshotPolicies),
		Descr: valueOf(in.Descr), Metadata: entity{}}
	setDefault(&ai.UUID, noUUID)
	setDefault(&ai.CreateMode, "normal")
	setDefault(&ai.AccessControl, denyAll)
	setDefault(&ai.RepairPriority, "default")
	if err := c.layOut(ai, in); err != nil {
		return nil, err
	}
	if in.UUID != "" && len(ai.Storage) > 0 && len(ai.Storage[0].Volumes) > 0 { // OpenStack wants the volume to have its uuid
		if c.volumeByUUID(in.UUID) != nil {
			return nil, conflict("a volume with uuid %s exists already", in.UUID)
		}
		ai.Storage[0].Volumes[0].UUID = in.UUID
	}
	c.tenant.AppInstances[ai.ID] = ai
	return c.viewAppInstance(ai), nil
}

// layOut gives a new app instance its storage instances: from the body, a template or a source to clone.
func (c *call) layOut(ai *appInstance, in appInstanceInput) error {
	sources := 0
	for _, given := range []bool{len(in.Storage) > 0, in.Template != nil && in.Template.Path != "", in.CloneSrc != nil,
		in.CloneVolumeSrc != nil, in.CloneSnapshotSrc != nil} {
		if given {
			sources++
		}
	}
	switch {
	case sources > 1:
		return refused("only one of storage_instances, app_template, clone_src, clone_volume_src and clone_snapshot_src can be given")
	case c.given("template_override") && (in.Template == nil || in.Template.Path == ""):
		return refused("template_override needs an app_template")
	case in.Template != nil && in.Template.Path != "":
		return c.layOutTemplate(ai, in)
	case in.CloneSrc != nil:
		return c.cloneAppInstance(ai, in.CloneSrc.Path)
	case in.CloneVolumeSrc != nil:
		return c.cloneVolume(ai, in.CloneVolumeSrc.Path)
	case in.CloneSnapshotSrc != nil:
		return c.cloneSnapshot(ai, in.CloneSnapshotSrc.Path)
	}
	for _, s := range in.Storage {
		if err := c.addStorage(ai, s); err != nil {
			return err
		}
	}
	return nil
}

func updateAppInstance(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	var in appInstanceInput
	if err := c.bind(&in); err != nil {
		return nil, err
	}
	if in.Name != nil && *in.Name != ai.Name {
		if other := c.findAppInstance(*in.Name); other != nil {
			return nil, conflict("app instance %s exists already at %s", *in.Name, other.path())
		}
	}
	if in.AdminState == offline && !c.force {
		if err := c.refuseBusy(ai.Storage...); err != nil {
			return nil, err
		}
	}
	if in.RestorePoint != "" {
		if err := c.restoreAppInstance(ai, in.RestorePoint); err != nil {
			return nil, err
		}
	}
	for _, s := range in.Storage {
		if err := c.putStorage(ai, s); err != nil {
			return nil, err
		}
	}
	if in.Name != nil {
		ai.Name = *in.Name
	}
	if in.Descr != nil {
		ai.Descr = *in.Descr
	}
	if in.SnapshotPolicies != nil {
		ai.SnapshotPolicies = *in.SnapshotPolicies
	}
	if in.RepairPriority != "" {
		ai.RepairPriority = in.RepairPriority
	}
	if in.AdminState != "" {
		ai.AdminState = in.AdminState
		for _, si := range ai.Storage {
			c.setAdminState(si, in.AdminState)
		}
	}
	return c.viewAppInstance(ai), nil
}

func deleteAppInstance(c *call) (any, error) {
	ai, err := c.appInstance()
	if err != nil {
		return nil, err
	}
	if ai.AdminState == online {
		return nil, refused("app instance %s is online: set its admin_state to offline before it is deleted", ai.Name)
	}
	for _, si := range ai.Storage {
		if err := c.refuseCopySource(si.Volumes...); err != nil {
			return nil, err
		}
	}
	view := c.viewAppInstance(ai)
	delete(c.tenant.AppInstances, ai.ID)
	return view, nil
}
