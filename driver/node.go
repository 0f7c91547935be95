package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

const gib = 1 << 30

// waitForAttach logs in to the volume's target and returns the path of its disk.
func (d *Driver) waitForAttach(ctx context.Context, passed string, volume Volume) (string, error) {
	device, err := d.deviceString(passed, volume)
	if err != nil {
		return "", err
	}
	attachment, err := ParseAttachment(device)
	if err == nil {
		err = attachment.checkFor(volume)
	}
	if err != nil {
		return "", err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := d.releaseFormer(ctx, volume.Name, attachment.Target); err != nil {
		return "", err
	}
	r := record{Name: volume.Name, AppInstance: volume.AppInstance, Device: device}
	d.keepDevice(r)
	disk, err := d.login(ctx, volume.Name, r, attachment, volume)
	return disk.Path, err
}

// login attaches the target under a record. The record is written first: whatever happens
// next, it leads back to what must be undone.
func (d *Driver) login(ctx context.Context, key string, r record, attachment Attachment, volume Volume) (iscsi.Device, error) {
	if err := d.journal().write(key, r); err != nil {
		return iscsi.Device{}, err
	}
	disk, err := d.Initiator.Attach(ctx, attachment.Target, d.chapFor(volume).forLogin())
	if err == nil {
		return disk, nil
	}
	err = fmt.Errorf("attach volume %s: %w", r.AppInstance, err)
	// Nobody may ever try again, so nothing stays; unless the volume was here before and is in use.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if leaveErr := d.journal().leave(key); leaveErr != nil {
		return iscsi.Device{}, errors.Join(err, leaveErr)
	}
	switch undoErr := d.removeDisk(ctx, key, attachment.Target); {
	case undoErr == nil:
		err = errors.Join(err, d.journal().forget(key))
	case errors.Is(undoErr, iscsi.ErrInUse) || errors.Is(undoErr, mount.ErrInUse):
		err = errors.Join(err, d.journal().write(key, r))
	}
	return iscsi.Device{}, err
}

// releaseFormer takes off the node what another volume of the same name has left, before its
// record is lost.
func (d *Driver) releaseFormer(ctx context.Context, key string, target iscsi.Target) error {
	r, found := d.journal().read(key)
	if former, err := targetOf(r); !found || err != nil || sameDisk(former, target) || d.usedByOthers(key, r) {
		return nil
	}
	if err := d.releaseLeftover(ctx, key); err != nil {
		return fmt.Errorf("an earlier volume of this name, %s, is still on this node: %w", r.AppInstance, err)
	}
	return nil
}

// mountDevice mounts the volume's disk on the node's global path, and makes the file
// system where the disk is provably blank.
func (d *Driver) mountDevice(ctx context.Context, path, device string, volume Volume) error {
	name, err := parseGlobalPath(path)
	if err != nil {
		return err
	}
	if name != volume.Name {
		return fmt.Errorf("directory %s is that of volume %s: accepted is the one of volume %s", path, name, volume.Name)
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return err
	}
	defer unlock()
	r, found := d.journal().read(volume.Name)
	if !found {
		return fmt.Errorf("volume %s has no record on this node, so nothing says which disk is its own: waitforattach makes one (kubelet calls it again by itself)", volume.Name)
	}
	_, err = d.mountDisk(ctx, path, device, r, volume)
	return err
}

// mountDisk mounts the disk after making sure that it is the volume's. It tells whether
// it made the file system.
func (d *Driver) mountDisk(ctx context.Context, path, device string, r record, volume Volume) (formatted bool, err error) {
	attachment, err := ParseAttachment(r.Device)
	if err != nil {
		return false, fmt.Errorf("record of volume %s: %w", r.Name, err)
	}
	if err := attachment.checkFor(volume); err != nil {
		return false, err
	}
	disk, err := d.identify(device, attachment)
	if err != nil {
		return false, err
	}
	_, found, err := d.Mounter.At(path)
	if err != nil {
		return false, err
	}
	if !found {
		if formatted, err = d.format(ctx, disk, attachment, volume); err != nil {
			return false, err
		}
	}
	options := mount.MountOptions{ReadOnly: volume.ReadOnly, Options: volume.MountOptions}
	if err := d.Mounter.Mount(ctx, disk.Path, path, volume.Filesystem, options); err != nil {
		return formatted, fmt.Errorf("mount volume %s: %w", volume.AppInstance, err)
	}
	if !volume.ReadOnly {
		// The disk may have been grown while nobody had it mounted, or be a larger clone.
		if err := d.Mounter.Grow(ctx, disk.Path, path, volume.Filesystem); err != nil {
			return formatted, fmt.Errorf("grow the file system of volume %s to its disk: %w", volume.AppInstance, err)
		}
	}
	if !found {
		d.Log.InfoContext(ctx, "mounted", "volume", volume.AppInstance, "disk", disk.Path, "path", path)
	}
	return formatted, nil
}

// identify proves that a disk is the volume's: its target, LUN and serial number are the
// ones that attach named.
func (d *Driver) identify(device string, attachment Attachment) (iscsi.Device, error) {
	disk, err := d.Initiator.Identify(device)
	if err != nil {
		return iscsi.Device{}, fmt.Errorf("device %s: %w; expected is the disk of target %s with serial %s", quoteShort(device), err, attachment.Target.IQN, attachment.Target.Serial)
	}
	if !sameDisk(disk.Target, attachment.Target) {
		return iscsi.Device{}, fmt.Errorf("device %s is LUN %d of target %s with serial %s, not this volume's, which is LUN %d of target %s with serial %s: it is left alone; delete the pod, so that the volume is attached anew",
			device, disk.Target.LUN, disk.Target.IQN, disk.Target.Serial, attachment.Target.LUN, attachment.Target.IQN, attachment.Target.Serial)
	}
	return disk, nil
}

func sameDisk(a, b iscsi.Target) bool {
	return iscsi.SameName(a.IQN, b.IQN) && a.LUN == b.LUN && a.Serial == b.Serial
}

// startAnew is the one way on with a disk that is not blank: to the array its blocks stay in use even if they are wiped. A
// volume of the provisioner is never made a second time.
func startAnew(volume Volume) string {
	if volume.Provisioned {
		return "delete the claim with its volume and make a new claim"
	}
	return "delete the volume on the array and let it be made anew"
}

const ifNotNeeded = "if it is certain that nothing on it is needed, "

// format makes the file system if, and only if, there is provably nothing on the disk:
// the disk reads blank everywhere a file system would be, it has the size that the array
// names, and the array knows of no data.
func (d *Driver) format(ctx context.Context, disk iscsi.Device, attachment Attachment, volume Volume) (bool, error) {
	content, err := d.Mounter.Inspect(ctx, disk.Path)
	if err != nil {
		return false, fmt.Errorf("volume %s: %w; look at dmesg, the portals and the volume on the array: once the disk can be read, the next try goes on", volume.AppInstance, err)
	}
	switch {
	case content.Filesystem == volume.Filesystem && content.Damaged:
		return false, fmt.Errorf("volume %s on %s holds a damaged %s (%s): it is not formatted and not mounted. Try `xfs_repair` or `e2fsck` on a clone of it first, or restore a snapshot; "+
			"if mkfs was cut off there and nothing was ever written to it, %s",
			volume.AppInstance, disk.Path, content.Filesystem, content.Detail, startAnew(volume))
	case content.Filesystem == volume.Filesystem:
		return false, nil
	case content.Filesystem != "":
		return false, fmt.Errorf("volume %s on %s holds %s (%s), not %s: it is not formatted and not mounted; correct fsType, or use another volume",
			volume.AppInstance, disk.Path, content.Filesystem, content.Detail, volume.Filesystem)
	case !content.Blank:
		return false, fmt.Errorf("volume %s on %s has no known file system but is not blank (%s): it is not formatted; it may hold data, or an interrupted mkfs. "+
			"Look at it with `blkid -p %s`; "+ifNotNeeded+"%s",
			volume.AppInstance, disk.Path, content.Detail, disk.Path, startAnew(volume))
	case attachment.NeverFormat:
		return false, fmt.Errorf("volume %s on %s reads blank, but the array says that there is data on it (blocks in use, a clone, or metadata formatted=true): it is not formatted; "+
			"check the volume on the array, its data may be lost or not restored yet", volume.AppInstance, disk.Path)
	case volume.ReadOnly:
		return false, fmt.Errorf("volume %s on %s is blank and is to be mounted read-only: it is not formatted; mount it read-write once", volume.AppInstance, disk.Path)
	}
	request := mount.FormatRequest{Device: disk.Path, Filesystem: volume.Filesystem, Options: volume.MkfsOptions, Bytes: attachment.SizeGiB * gib}
	if err := d.Mounter.Format(ctx, request); errors.Is(err, mount.ErrNotBlank) {
		return false, fmt.Errorf("volume %s: %w; "+ifNotNeeded+"%s", volume.AppInstance, err, startAnew(volume))
	} else if err != nil {
		return false, fmt.Errorf("volume %s: %w", volume.AppInstance, err)
	}
	d.Log.InfoContext(ctx, "formatted a blank disk", "volume", volume.AppInstance, "disk", disk.Path, "filesystem", volume.Filesystem)
	return true, nil
}

// checkMountPath accepts what kubelet passes: an absolute path without tricks.
func checkMountPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("directory %s: accepted is an absolute path without . and .. elements", quoteShort(path))
	}
	return nil
}
