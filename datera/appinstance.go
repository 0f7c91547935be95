package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// The administrative states of an app instance.
const (
	AdminOnline  = "online"
	AdminOffline = "offline"
)

// AppInstance is what one volume of a driver is on the array: a container of storage instances (iSCSI
// targets), each with its volumes (LUNs).
type AppInstance struct {
	Path              string            `json:"path"` // always with the UUID, also when read by name
	Name              string            `json:"name"`
	ID                string            `json:"id"`
	AdminState        string            `json:"admin_state"`
	OpState           string            `json:"op_state"` // "cloning" while a clone is being made
	Descr             string            `json:"descr"`
	AccessControlMode string            `json:"access_control_mode"`
	StorageInstances  []StorageInstance `json:"storage_instances"`
}

// StorageInstance is one iSCSI target.
type StorageInstance struct {
	Path    string `json:"path"`
	Name    string `json:"name"`
	OpState string `json:"op_state"` // available, unavailable or failed
	Access  struct {
		IPs []string `json:"ips"` // of the portals, without a port; may be filled some seconds after the target is online
		IQN string   `json:"iqn"`
	} `json:"access"`
	AccessControlMode string    `json:"access_control_mode"`
	ACL               ACL       `json:"acl_policy"`
	Auth              Auth      `json:"auth"`
	ActiveInitiators  []string  `json:"active_initiators"` // IQNs with a live session
	IPPool            Reference `json:"ip_pool"`
	Volumes           []Volume  `json:"volumes"`
}

// UnmarshalJSON fills in the LUNs: an array that does not name them numbers them in the order of the volumes.
func (si *StorageInstance) UnmarshalJSON(b []byte) error {
	type plain StorageInstance
	if err := json.Unmarshal(b, (*plain)(si)); err != nil {
		return err
	}
	for i := range si.Volumes {
		if si.Volumes[i].LUN == nil {
			si.Volumes[i].LUN = &i
		}
	}
	return nil
}

// Operational states of a storage instance.
const (
	OpStateAvailable = "available"
	OpStateFailed    = "failed"
)

// Volume is one LUN.
type Volume struct {
	Path              string            `json:"path"`
	Name              string            `json:"name"`
	UUID              string            `json:"uuid"` // also the unit serial number of the SCSI device
	SizeGiB           int64             `json:"-"`
	ReplicaCount      int               `json:"-"`
	CapacityInUseGiB  int64             `json:"-"`
	PlacementMode     string            `json:"placement_mode"`
	PlacementPolicy   Reference         `json:"placement_policy"`
	LUN               *int              `json:"-"` // nil when the volume was not read with its storage instance
	PerformancePolicy PerformancePolicy `json:"performance_policy"`
}

// UnmarshalJSON tolerates numbers written as strings or floats.
func (v *Volume) UnmarshalJSON(b []byte) error {
	type plain Volume
	w := struct {
		*plain
		Size          number  `json:"size"`
		Replicas      number  `json:"replica_count"`
		CapacityInUse number  `json:"capacity_in_use"`
		Number        *number `json:"lun"`
	}{plain: (*plain)(v)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	v.SizeGiB, v.ReplicaCount, v.CapacityInUseGiB, v.LUN = int64(w.Size), int(w.Replicas), int64(w.CapacityInUse), nil
	if w.Number != nil {
		v.LUN = new(int(*w.Number))
	}
	return nil
}

// PerformancePolicy limits a volume. 0 is no limit. IOPS are per second, bandwidths in KiB/s.
type PerformancePolicy struct {
	TotalIOPSMax      int64 `json:"total_iops_max"`
	ReadIOPSMax       int64 `json:"read_iops_max"`
	WriteIOPSMax      int64 `json:"write_iops_max"`
	TotalBandwidthMax int64 `json:"total_bandwidth_max"`
	ReadBandwidthMax  int64 `json:"read_bandwidth_max"`
	WriteBandwidthMax int64 `json:"write_bandwidth_max"`
}

// UnmarshalJSON tolerates numbers written as strings or floats.
func (p *PerformancePolicy) UnmarshalJSON(b []byte) error {
	var w struct {
		TotalIOPS      number `json:"total_iops_max"`
		ReadIOPS       number `json:"read_iops_max"`
		WriteIOPS      number `json:"write_iops_max"`
		TotalBandwidth number `json:"total_bandwidth_max"`
		ReadBandwidth  number `json:"read_bandwidth_max"`
		WriteBandwidth number `json:"write_bandwidth_max"`
	}
	err := json.Unmarshal(b, &w)
	*p = PerformancePolicy{int64(w.TotalIOPS), int64(w.ReadIOPS), int64(w.WriteIOPS), int64(w.TotalBandwidth), int64(w.ReadBandwidth), int64(w.WriteBandwidth)}
	return err
}

// Names that this client gives to the only storage instance and the only volume, as all drivers do.
const (
	storageInstanceName = "storage-1"
	volumeName          = "volume-1"
)

// StorageInstance returns the storage instance named storage-1, or else the only one.
func (ai *AppInstance) StorageInstance() (*StorageInstance, error) {
	for i := range ai.StorageInstances {
		if si := &ai.StorageInstances[i]; si.Name == storageInstanceName || len(ai.StorageInstances) == 1 {
			return si, nil
		}
	}
	return nil, fmt.Errorf("app instance %s has %d storage instances and none named %s: it was not made by this driver, or its creation was cut short",
		ai.Name, len(ai.StorageInstances), storageInstanceName)
}

// Volume returns the volume named volume-1 of StorageInstance, or else its only one.
func (ai *AppInstance) Volume() (*Volume, error) {
	si, err := ai.StorageInstance()
	if err != nil {
		return nil, err
	}
	for i := range si.Volumes {
		if v := &si.Volumes[i]; v.Name == volumeName || len(si.Volumes) == 1 {
			return v, nil
		}
	}
	return nil, fmt.Errorf("storage instance %s of app instance %s has %d volumes and none named %s: it was not made by this driver, or its creation was cut short",
		si.Name, ai.Name, len(si.Volumes), volumeName)
}

// AppInstance reads an app instance by its name or ID.
func (c *Client) AppInstance(ctx context.Context, nameOrID string) (*AppInstance, error) {
	return fetch[AppInstance](ctx, c, get, at("app_instances", nameOrID), nil)
}

// SetAdminState puts an app instance online or offline. With force it goes offline although initiators are
// logged in.
func (c *Client) SetAdminState(ctx context.Context, id, state string, force bool) (*AppInstance, error) {
	return fetch[AppInstance](ctx, c, put, at("app_instances", id), adminState{state, force})
}

type adminState struct {
	AdminState string `json:"admin_state"`
	Force      bool   `json:"force,omitempty"`
}

// DeleteAppInstance deletes an app instance, which must be offline, with all its data. One that is not there is deleted.
func (c *Client) DeleteAppInstance(ctx context.Context, id string) error {
	err := c.call(ctx, remove, at("app_instances", id), map[string]bool{"force": true}, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// ResizeVolume sets the size of a volume, online or offline. The array only grows volumes, and may still be
// at it when the answer comes.
func (c *Client) ResizeVolume(ctx context.Context, volumePath string, sizeGiB int64) (*Volume, error) {
	return fetch[Volume](ctx, c, put, under(volumePath), map[string]int64{"size": sizeGiB})
}

// SetPerformancePolicy sets all limits of a volume.
func (c *Client) SetPerformancePolicy(ctx context.Context, volumePath string, p PerformancePolicy) error {
	policy := under(volumePath, "performance_policy")
	err := c.call(ctx, post, policy, p, nil)
	if IsConflict(err) || errors.Is(err, errLost) {
		return c.call(ctx, put, policy, p, nil)
	}
	return err
}

// Metadata reads the pairs that clients keep with an app instance. Booleans and numbers, which some store,
// become strings.
func (c *Client) Metadata(ctx context.Context, id string) (map[string]string, error) {
	var raw map[string]json.RawMessage
	if err := c.call(ctx, get, at("app_instances", id, "metadata"), nil, &raw); err != nil {
		return nil, err
	}
	pairs := make(map[string]string, len(raw))
	for key, value := range raw {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		pairs[key] = text
	}
	return pairs, nil
}

// SetMetadata adds to the metadata of an app instance; pairs that it does not name stay. All together may
// have 2048 bytes.
func (c *Client) SetMetadata(ctx context.Context, id string, pairs map[string]string) error {
	return c.call(ctx, put, at("app_instances", id, "metadata"), pairs, nil)
}
