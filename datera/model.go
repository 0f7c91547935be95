package datera

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
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
	AccessControlMode string            `json:"access_control_mode"` // what counts is that of the storage instances
	StorageInstances  []StorageInstance `json:"storage_instances"`
}

// UnmarshalJSON makes sure that all of it is one app instance: what is changed by a path of it must be what was read.
func (ai *AppInstance) UnmarshalJSON(b []byte) error {
	type plain AppInstance
	if err := json.Unmarshal(b, (*plain)(ai)); err != nil {
		return err
	}
	switch {
	case ai.ID == "" || ai.Path != "/app_instances/"+ai.ID:
		return fmt.Errorf("app instance with the path %q and the id %q", printable(ai.Path, maxDetail), printable(ai.ID, maxDetail))
	case ai.Name == "":
		return fmt.Errorf("app instance %s does not say its name", ai.ID)
	case ai.AdminState != AdminOnline && ai.AdminState != AdminOffline:
		return fmt.Errorf("app instance %s has the admin_state %q: is it online or offline?", ai.ID, printable(ai.AdminState, maxName))
	case ai.StorageInstances == nil:
		return fmt.Errorf("app instance %s does not show its storage instances", ai.ID)
	}
	for _, si := range ai.StorageInstances {
		if err := si.check(ai.Path); err != nil {
			return fmt.Errorf("app instance %s: %w", ai.ID, err)
		}
	}
	return nil
}

// is says whether an app instance is the one of this name or ID.
func (ai *AppInstance) is(nameOrID string) error {
	if ai.Name != nameOrID && !strings.EqualFold(ai.ID, nameOrID) {
		return fmt.Errorf("it is app instance %q with the id %s, not %q", printable(ai.Name, maxName), ai.ID, nameOrID)
	}
	return nil
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
	AccessControlMode string   `json:"access_control_mode"` // deny_all or allow_all
	ACL               ACL      `json:"acl_policy"`
	Auth              Auth     `json:"auth"`
	ActiveInitiators  []string `json:"active_initiators"` // IQNs with a live session; nil when the array does not show them
	Volumes           []Volume `json:"volumes"`
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

// check makes sure that it and its volumes belong to an app instance, and say what must not be guessed.
func (si *StorageInstance) check(appInstance string) error {
	if err := belongs(si.Path, appInstance+"/storage_instances", si.Name); err != nil {
		return err
	}
	if si.AccessControlMode != "deny_all" && si.AccessControlMode != "allow_all" {
		return fmt.Errorf("storage instance %s has the access_control_mode %q: it must be deny_all or allow_all", si.Name, printable(si.AccessControlMode, maxName))
	}
	if si.Volumes == nil {
		return fmt.Errorf("storage instance %s does not show its volumes", si.Name)
	}
	for _, v := range si.Volumes {
		if err := belongs(v.Path, si.Path+"/volumes", v.Name); err != nil {
			return err
		}
	}
	for _, ip := range si.Access.IPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			return fmt.Errorf("storage instance %s has a portal at %q: it must be an IP address", si.Name, printable(ip, maxName))
		}
	}
	for _, iqn := range si.ActiveInitiators {
		if !isIQN(iqn) {
			return fmt.Errorf("storage instance %s has the active initiator %q, which is not an IQN", si.Name, printable(iqn, maxDetail))
		}
	}
	if si.Access.IQN != "" && !isIQN(si.Access.IQN) {
		return fmt.Errorf("storage instance %s has the IQN %q, which is not one", si.Name, printable(si.Access.IQN, maxDetail))
	}
	return nil
}

// belongs makes sure that a path is that of an element of a collection, by its name.
func belongs(path, collection, name string) error {
	if name == "" || path != collection+"/"+name {
		return fmt.Errorf("%q with the path %q is not one of %s", printable(name, maxName), printable(path, maxDetail), collection)
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

// UnmarshalJSON tolerates numbers written as strings or floats. What would let a volume be taken for another one, or for a
// blank one, must be there.
func (v *Volume) UnmarshalJSON(b []byte) error {
	type plain Volume
	w := struct {
		*plain
		Size          number  `json:"size"`
		Replicas      number  `json:"replica_count"`
		CapacityInUse *number `json:"capacity_in_use"`
		Number        *number `json:"lun"`
	}{plain: (*plain)(v)}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	switch {
	case !isUUID(v.UUID):
		return fmt.Errorf("volume %q has the uuid %q", printable(v.Path, maxDetail), printable(v.UUID, maxName))
	case w.Size < 1:
		return fmt.Errorf("volume %q has a size of %d GiB", printable(v.Path, maxDetail), w.Size)
	case w.CapacityInUse == nil || *w.CapacityInUse < 0:
		return fmt.Errorf("volume %q does not say how much of it is in use (capacity_in_use)", printable(v.Path, maxDetail))
	}
	v.SizeGiB, v.ReplicaCount, v.CapacityInUseGiB, v.LUN = int64(w.Size), int(w.Replicas), int64(*w.CapacityInUse), nil
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
