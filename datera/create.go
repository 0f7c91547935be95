package datera

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// AppInstanceRequest asks for an app instance with one storage instance and one volume.
//
// With CloneVolume or CloneSnapshot the array copies the layout from there, and with Template it takes the
// layout from that: then only Name, Descr, CreateMode and AccessControlMode are sent (and SizeGiB, with a
// template, when it is not 0). Everything else is set afterwards, with SetAuth, ResizeVolume and so on.
type AppInstanceRequest struct {
	Name              string
	Descr             string
	CreateMode        string // which integration asks, from the array's own list of names
	AccessControlMode string // "deny_all": only initiators of the ACL may log in

	SizeGiB           int64
	ReplicaCount      int
	PlacementMode     string // hybrid, single_flash or all_flash
	PlacementPolicy   string // name; it takes precedence over the mode; product 3.3 and later
	IPPool            string // name
	Auth              Auth
	PerformancePolicy PerformancePolicy

	Template      string // name
	CloneVolume   string // path of a volume
	CloneSnapshot string // path of a snapshot
}

// CreateAppInstance makes an app instance. When the array has one of this name it returns that, with
// created false: the caller judges whether it is what he wanted.
func (c *Client) CreateAppInstance(ctx context.Context, r AppInstanceRequest) (ai *AppInstance, created bool, err error) {
	body, err := c.appInstanceBody(r)
	if err != nil {
		return nil, false, fmt.Errorf("create app instance %q: %w", r.Name, err)
	}
	asked := func(ai *AppInstance) error { return ai.is(r.Name) }
	return create(ctx, c, request{at: at("app_instances"), body: body, secrets: r.Auth.secrets()}, asked, func() (*AppInstance, error) {
		return c.AppInstance(ctx, r.Name)
	})
}

// The bodies hold what the array knows and nothing else: it refuses unknown fields.
type (
	appInstanceBody struct {
		Name              string                `json:"name"`
		Descr             string                `json:"descr,omitempty"`
		CreateMode        string                `json:"create_mode,omitempty"`
		AccessControlMode string                `json:"access_control_mode,omitempty"`
		StorageInstances  []storageInstanceBody `json:"storage_instances,omitempty"`
		AppTemplate       *pathTo               `json:"app_template,omitempty"`
		TemplateOverride  any                   `json:"template_override,omitempty"`
		CloneVolumeSrc    *pathTo               `json:"clone_volume_src,omitempty"`
		CloneSnapshotSrc  *pathTo               `json:"clone_snapshot_src,omitempty"`
	}
	storageInstanceBody struct {
		Name    string       `json:"name"`
		IPPool  *pathTo      `json:"ip_pool,omitempty"`
		Auth    *authBody    `json:"auth"`
		Volumes []volumeBody `json:"volumes"`
	}
	volumeBody struct {
		Name              string            `json:"name"`
		Size              int64             `json:"size"` // GiB
		ReplicaCount      int               `json:"replica_count,omitempty"`
		PlacementMode     string            `json:"placement_mode,omitempty"`
		PlacementPolicy   *pathTo           `json:"placement_policy,omitempty"`
		PerformancePolicy PerformancePolicy `json:"performance_policy,omitzero"`
	}
)

func (c *Client) appInstanceBody(r AppInstanceRequest) (*appInstanceBody, error) {
	if err := checkName(r.Name); err != nil && !isUUID(r.Name) {
		return nil, err
	}
	body := &appInstanceBody{Name: r.Name, Descr: r.Descr, CreateMode: r.CreateMode, AccessControlMode: r.AccessControlMode}
	var err error
	switch {
	case r.CloneVolume != "" && r.CloneSnapshot != "", r.Template != "" && r.CloneVolume+r.CloneSnapshot != "":
		return nil, errors.New("give one of template, volume and snapshot to make it from, not several")
	case r.CloneVolume != "":
		body.CloneVolumeSrc, err = &pathTo{r.CloneVolume}, under(r.CloneVolume).err
	case r.CloneSnapshot != "":
		body.CloneSnapshotSrc, err = &pathTo{r.CloneSnapshot}, under(r.CloneSnapshot).err
	case r.Template != "":
		body.AppTemplate, err = refer("app_templates", r.Template)
		if r.SizeGiB != 0 && c.minor < 2 {
			return nil, errors.New("API version 2.1 cannot give a volume another size than its template's: use 2.2, or no size")
		}
		if r.SizeGiB != 0 {
			body.TemplateOverride = overrideSize(r.SizeGiB)
		}
	default:
		body.StorageInstances, err = c.layout(r)
	}
	return body, err
}

// layout is the one storage instance with the one volume.
func (c *Client) layout(r AppInstanceRequest) ([]storageInstanceBody, error) {
	if r.SizeGiB < 1 {
		return nil, fmt.Errorf("a size of %d GiB: it must be 1 or more", r.SizeGiB)
	}
	if r.PlacementPolicy != "" && c.minor < 2 {
		return nil, errors.New("API version 2.1 knows no placement policies: use 2.2, or a placement mode")
	}
	auth, authErr := r.Auth.body()
	pool, poolErr := refer("access_network_ip_pools", r.IPPool)
	policy, policyErr := refer("placement_policies", r.PlacementPolicy)
	return []storageInstanceBody{{
		Name: storageInstanceName, IPPool: pool, Auth: auth,
		Volumes: []volumeBody{{
			Name: volumeName, Size: r.SizeGiB, ReplicaCount: r.ReplicaCount,
			PlacementMode: r.PlacementMode, PlacementPolicy: policy, PerformancePolicy: r.PerformancePolicy,
		}},
	}}, errors.Join(authErr, poolErr, policyErr)
}

// overrideSize names the volume as templates made for drivers do. The size is a string here and nowhere
// else (datera-csi, pkg/client/volume.go).
func overrideSize(sizeGiB int64) any {
	type object = map[string]any
	volume := object{volumeName: object{"size": strconv.FormatInt(sizeGiB, 10)}}
	return object{"storage_instances": object{storageInstanceName: object{"volumes": volume}}}
}

// checkName knows the array's rule for names (schema of the v2.1 product).
func checkName(name string) error {
	if ok, _ := regexp.MatchString(`^[A-Za-z_][A-Za-z0-9_.-]{2,63}$`, name); !ok {
		return fmt.Errorf("the array cannot have the name %q: it takes 3 to 64 of letters, digits, _, - and ., the first a letter or _", printable(name, 80))
	}
	return nil
}

func isUUID(name string) bool {
	ok, _ := regexp.MatchString(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`, name)
	return ok
}
