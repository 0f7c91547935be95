package lab

import (
	"encoding/json"
	"maps"
	"strings"
)

// Where kubelet keeps volumes on a node.
const (
	kubelet   = "/var/lib/kubelet"
	globalDir = kubelet + "/plugins/kubernetes.io/flexvolume/datera/iscsi/mounts/"
)

// A Volume is a PersistentVolume as kubelet passes it to the driver.
type Volume struct {
	Name    string
	Options map[string]string
}

// SeedVolume is the PersistentVolume of the seed documents.
func SeedVolume() Volume {
	return Volume{Name: "pv-datera-0", Options: map[string]string{
		"kubernetes.io/fsType": "xfs", "kubernetes.io/pvOrVolumeName": "pv-datera-0", "kubernetes.io/readwrite": "rw",
		"volumeID": "kube-pv-datera-0", "size": "100", "replica": "3", "backstoreServer": ArrayAddress,
	}}
}

// With returns the volume with some options changed.
func (v Volume) With(changes map[string]string) Volume {
	v.Options = maps.Clone(v.Options)
	maps.Copy(v.Options, changes)
	return v
}

// Request is the JSON that kubelet passes.
func (v Volume) Request() string {
	var request strings.Builder
	encoder := json.NewEncoder(&request)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v.Options); err != nil {
		panic(err) // a map of strings always encodes
	}
	return strings.TrimSpace(request.String())
}

// GlobalPath is where mountdevice mounts the volume.
func (v Volume) GlobalPath() string { return globalDir + v.Name }

// PodPath is where mount mounts it for a pod.
func (v Volume) PodPath(uid string) string {
	return kubelet + "/pods/" + uid + "/volumes/datera~iscsi/" + v.Name
}
