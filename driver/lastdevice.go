package driver

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// kubelet passes to waitforattach what attach answered, but not always: it keeps what waitforattach answered, the path of
// the disk, in the same place, and passes that for a second pod on the node and for a pod that comes back before the
// volume is detached (pkg/kubelet/volumemanager/cache, SetDeviceMountState). By then that disk may be gone, or be another
// volume's. So the device string is kept for as long as kubelet may remember: until the machine restarts.

func (d *Driver) lastDevicePath(name string) string {
	return filepath.Join(d.Config.RunDir, "devices", fileNameFor(name)+".json")
}

// keepDevice stores the device string of a volume. That it cannot is no failure: it may never be asked for.
func (d *Driver) keepDevice(r record) {
	if known, err := readRecord(d.lastDevicePath(r.Name)); err == nil && known == r {
		return
	}
	if document, err := json.Marshal(r); err == nil {
		_ = writeDurably(d.lastDevicePath(r.Name), document)
	}
}

// deviceString is what attach answered for a volume: what kubelet passed, unless that is the path of a disk.
func (d *Driver) deviceString(passed string, volume Volume) (string, error) {
	if !filepath.IsAbs(passed) {
		return passed, nil
	}
	if r, err := readRecord(d.lastDevicePath(volume.Name)); err == nil && r.AppInstance == volume.AppInstance {
		return r.Device, nil
	}
	if r, found := d.journal().read(volume.Name); found && r.AppInstance == volume.AppInstance {
		return r.Device, nil
	}
	return "", fmt.Errorf("attach volume %s: kubelet passed disk %s, which it remembers of an earlier pod, and the target behind it is no longer known on this node: restart kubelet, or delete the pod and wait until the volume is detached",
		volume.AppInstance, quoteShort(passed))
}
