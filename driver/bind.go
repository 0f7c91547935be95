package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"datera-flexvolume/mount"
)

// FolderName is DriverName as kubelet writes it in paths: of the driver's folder among its plug-ins, and of a pod's volumes.
const FolderName = "datera~iscsi"

// globalMounts is where kubelet mounts this driver's volumes, below its root directory.
const globalMounts = "plugins/kubernetes.io/flexvolume/datera/iscsi/mounts"

// parseGlobalPath takes the volume's name from …/plugins/kubernetes.io/flexvolume/datera/iscsi/mounts/NAME.
func parseGlobalPath(path string) (name string, err error) {
	if err := checkMountPath(path); err != nil {
		return "", err
	}
	dir, name := filepath.Split(path)
	if !strings.HasSuffix(dir, "/"+globalMounts+"/") {
		return "", fmt.Errorf("directory %s: accepted is where kubelet mounts volumes of this driver, …/%s/NAME", quoteShort(path), globalMounts)
	}
	return name, checkVolumeName(name)
}

// podVolume is what the path of a pod's volume directory says.
type podVolume struct {
	root string // of kubelet
	name string // of the volume
}

// parsePodPath takes apart ROOT/pods/UID/volumes/datera~iscsi/NAME.
func parsePodPath(path string) (podVolume, error) {
	if err := checkMountPath(path); err != nil {
		return podVolume{}, err
	}
	parts := strings.Split(path, "/")
	n := len(parts)
	if n < 6 || parts[n-2] != FolderName || parts[n-3] != "volumes" || parts[n-5] != "pods" {
		return podVolume{}, fmt.Errorf("directory %s: accepted is a pod's volume directory, …/pods/UID/volumes/%s/NAME", quoteShort(path), FolderName)
	}
	if err := checkVolumeName(parts[n-1]); err != nil {
		return podVolume{}, err
	}
	return podVolume{root: strings.Join(parts[:n-5], "/"), name: parts[n-1]}, nil
}

func (p podVolume) globalPath(key string) string {
	return filepath.Join(p.root, globalMounts, key)
}

// mount gives a pod its volume: a bind mount of what mountdevice mounted or, in attach
// mode none, everything from the array to the bind mount.
func (d *Driver) mount(ctx context.Context, path string, volume Volume) error {
	pod, err := parsePodPath(path)
	if err != nil {
		return err
	}
	if pod.name != volume.Name {
		return fmt.Errorf("directory %s is for volume %s: accepted is one for volume %s", path, pod.name, volume.Name)
	}
	if d.Config.Attach == AttachNone {
		return d.mountDirect(ctx, path, pod, volume)
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return err
	}
	defer unlock()
	return d.bind(ctx, pod.globalPath(volume.Name), path, volume.Name, volume)
}

// bind mounts the global path on the pod's directory, if it holds the right volume.
func (d *Driver) bind(ctx context.Context, global, path, key string, volume Volume) error {
	mounted, found, err := d.Mounter.At(global)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("volume %s is not mounted on %s: mountdevice comes first (kubelet calls it by itself, unless the attach mode was changed since it last ran init)", volume.Name, global)
	}
	if err := d.checkMounted(mounted, key, volume); err != nil {
		return err
	}
	if mounted.ReadOnly && !volume.ReadOnly {
		return fmt.Errorf("volume %s is mounted read-only on this node (%s) and is to be written: delete the pods that use it on this node, this one too, then it is mounted anew", volume.Name, global)
	}
	if err := d.Mounter.Bind(ctx, global, path, volume.ReadOnly); errors.Is(err, mount.ErrOccupied) {
		return fmt.Errorf("bind volume %s: %w, or delete the pod", volume.Name, err)
	} else if err != nil {
		return fmt.Errorf("bind volume %s: %w", volume.Name, err)
	}
	return nil
}

// checkMounted catches two volumes of one name, which in-line volumes of different pods
// may be: Kubernetes takes them for one.
func (d *Driver) checkMounted(mounted mount.Mount, key string, volume Volume) error {
	r, found := d.journal().read(key)
	if !found {
		return nil
	}
	if r.AppInstance != volume.AppInstance {
		return fmt.Errorf("what is mounted on %s as %s is volume %s, not %s: two pods use one volume name for two volumes; give their volumes different names",
			mounted.Path, volume.Name, r.AppInstance, volume.AppInstance)
	}
	attachment, err := ParseAttachment(r.Device)
	if err != nil {
		return nil
	}
	_, err = d.identify(mounted.Device, attachment)
	return err
}

// unmount takes the volume out of a pod's directory.
func (d *Driver) unmount(ctx context.Context, path string) error {
	if _, err := parsePodPath(path); err != nil {
		return err
	}
	if key, r, found := d.directBehind(path); found {
		return d.unmountDirect(ctx, path, key, r)
	}
	if err := d.Mounter.Unmount(ctx, path); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}
