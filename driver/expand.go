package driver

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"datera-flexvolume/iscsi"
)

// rescanTime is how long a disk may take to show a growth that is done on the array.
const rescanTime = 5 * time.Second

// parseBytes reads a size argument of kubelet.
func parseBytes(name, text string) (int64, error) {
	bytes, err := strconv.ParseInt(text, 10, 64)
	if err != nil || bytes < 1 || bytes > maxSizeGiB*gib {
		return 0, fmt.Errorf("%s is %s: accepted is a number of bytes from 1 to %d", name, quoteShort(text), int64(maxSizeGiB*gib))
	}
	return bytes, nil
}

// RoundUpGiB is the size in GiB that holds so many bytes; the array counts in GiB.
func RoundUpGiB(bytes int64) int64 { return (bytes-1)/gib + 1 }

// expandVolume grows the volume on the array and returns its size in bytes.
func (d *Driver) expandVolume(ctx context.Context, volume Volume, bytes int64) (int64, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return 0, err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return d.growOnArray(ctx, array, volume, bytes)
}

func (d *Driver) growOnArray(ctx context.Context, array Array, volume Volume, bytes int64) (int64, error) {
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if err != nil {
		return 0, fmt.Errorf("read volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	onArray, err := ai.Volume()
	if err != nil {
		return 0, fmt.Errorf("volume %s: %w", volume.AppInstance, err)
	}
	wanted := RoundUpGiB(bytes)
	if onArray.SizeGiB >= wanted {
		return onArray.SizeGiB * gib, nil
	}
	if _, err := array.ResizeVolume(ctx, onArray.Path, wanted); err != nil {
		return 0, fmt.Errorf("grow volume %s on %s from %d to %d GiB: %w", volume.AppInstance, array.Server(), onArray.SizeGiB, wanted, err)
	}
	return wanted * gib, nil
}

// expandFS grows a mounted volume to at least so many bytes: on the array, where nobody
// else does it (no controller calls expandvolume), then the disk, then the file system.
// The disk is taken from the mount, not from kubelet, which may still know an old one.
func (d *Driver) expandFS(ctx context.Context, volume Volume, path string, bytes int64) error {
	if err := checkMountPath(path); err != nil {
		return err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return err
	}
	defer unlock()
	mounted, found, err := d.Mounter.At(path)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("volume %s is not mounted on %s: mountdevice comes first", volume.Name, path)
	}
	disk, err := d.Initiator.Identify(mounted.Device)
	if err != nil {
		return fmt.Errorf("%s, mounted on %s: %w", mounted.Device, path, err)
	}
	if err := d.expandDisk(ctx, volume, disk, bytes); err != nil {
		return err
	}
	if err := d.Mounter.Grow(ctx, disk.Path, path, mounted.Filesystem); err != nil {
		return fmt.Errorf("grow the file system of volume %s: %w", volume.AppInstance, err)
	}
	return nil
}

// expandDisk makes the disk large enough. A disk that is large enough already, because an
// administrator or a provisioner grew it, needs neither array nor credentials.
func (d *Driver) expandDisk(ctx context.Context, volume Volume, disk iscsi.Device, bytes int64) error {
	if disk.Bytes >= bytes {
		return nil
	}
	array, arrayErr := d.arrayFor(volume)
	if arrayErr == nil {
		if _, err := d.growOnArray(ctx, array, volume, bytes); err != nil {
			return err
		}
	}
	if arrayErr != nil {
		// Somebody else may have grown the volume: one look, no long wait.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rescanTime)
		defer cancel()
	}
	size, err := d.Initiator.Resize(ctx, disk, bytes)
	if err == nil && size >= bytes {
		return nil
	}
	if arrayErr != nil {
		return fmt.Errorf("volume %s has %d bytes, wanted are %d, and this node cannot grow it on the array: %w", volume.AppInstance, disk.Bytes, bytes, arrayErr)
	}
	if err == nil {
		err = fmt.Errorf("the disk %s still has %d bytes", disk.Path, size)
	}
	return fmt.Errorf("grow the disk of volume %s to %d bytes: %w", volume.AppInstance, bytes, err)
}
