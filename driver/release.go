package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// unmountDevice takes the volume off the node. It gets a path and nothing else.
func (d *Driver) unmountDevice(ctx context.Context, path string) error {
	name, err := parseGlobalPath(path)
	if err != nil {
		return err
	}
	unlock, err := d.lockVolume(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return d.release(ctx, name, path)
}

// release unmounts path, removes the disk with its sessions and forgets the volume. It
// goes on from wherever an earlier attempt stopped. The disk is found by what is mounted
// or, when nothing is any more, by the record.
func (d *Driver) release(ctx context.Context, key, path string) error {
	mounted, found, err := d.Mounter.At(path)
	if err != nil {
		return err
	}
	r, recorded := d.journal().read(key)
	if !found && !recorded {
		return nil
	}
	if !recorded {
		r, _ = readRecord(d.lastDevicePath(key)) // the journal was lost, and the disk may be, too
	}
	var target iscsi.Target
	if found {
		if target, err = d.targetBehind(mounted, r); err != nil {
			return err
		}
		if err := d.refuseOthers(mounted); err != nil {
			return err
		}
	} else if target, err = targetOf(r); err != nil {
		return err
	}
	d.noteLeaving(ctx, key)
	if found {
		if err := d.Mounter.Unmount(ctx, path); err != nil {
			return fmt.Errorf("unmount volume %s: %w", key, err)
		}
	}
	if err := d.removeWhenFree(ctx, key, target); err != nil {
		return err
	}
	d.noteGone(ctx, key)
	return nil
}

// holderTime is how long unmountdevice waits for a container that ends late.
const holderTime = 30 * time.Second

// removeWhenFree is removeDisk with patience: when kubelet unmounts the volume of a pod that it found deleted as it started
// again, the pod's container still has the disk in a mount namespace of its own, and is ended a moment later. kubelet
// calls unmountdevice no more once the path is no mount point, so this call is the one to wait.
func (d *Driver) removeWhenFree(ctx context.Context, key string, target iscsi.Target) error {
	patient, cancel := context.WithTimeout(ctx, holderTime)
	defer cancel()
	var last error
	_, _ = backoff.Retry(patient, func() (struct{}, error) {
		last = d.removeDisk(ctx, key, target)
		if errors.Is(last, iscsi.ErrInUse) || errors.Is(last, mount.ErrInUse) {
			return struct{}{}, last
		}
		return struct{}{}, backoff.Permanent(last)
	}, backoff.WithBackOff(pace(time.Second)), backoff.WithMaxElapsedTime(0))
	return last
}

// noteLeaving and noteGone keep the journal of a removal. A disk that is full or broken must not keep a volume on the node,
// so they only warn: what is cut off then is left to iscsi reap.
func (d *Driver) noteLeaving(ctx context.Context, key string) {
	if err := d.journal().leave(key); err != nil {
		d.Log.WarnContext(ctx, "the journal does not say that the volume is leaving", "volume", key, "error", err)
	}
}

func (d *Driver) noteGone(ctx context.Context, key string) {
	if err := d.journal().forget(key); err != nil {
		d.Log.WarnContext(ctx, "the journal does not say that the volume is gone", "volume", key, "error", err)
	}
}

// removeDisk removes the disk with its sessions, once the kernel has let go of it: a file
// system may still be written to after it has vanished from the list of mounts.
func (d *Driver) removeDisk(ctx context.Context, key string, target iscsi.Target) error {
	disk, found, err := d.Initiator.Find(ctx, target)
	if err != nil {
		return fmt.Errorf("look for the disk of volume %s: %w", key, err)
	}
	if found {
		if err := d.Mounter.Released(ctx, disk.Path); err != nil {
			return fmt.Errorf("volume %s: %w", key, err)
		}
	}
	if err := d.Initiator.Detach(ctx, target); err != nil {
		return fmt.Errorf("detach the disk of volume %s: %w", key, err)
	}
	return nil
}

// targetBehind identifies the disk that is mounted. The kernel is asked first; a disk that
// is gone already is known from the record.
func (d *Driver) targetBehind(mounted mount.Mount, r record) (iscsi.Target, error) {
	disk, err := d.Initiator.Identify(mounted.Device)
	if err == nil {
		return disk.Target, nil
	}
	if target, recordErr := targetOf(r); recordErr == nil && errors.Is(err, fs.ErrNotExist) {
		return target, nil
	}
	return iscsi.Target{}, fmt.Errorf("%s is mounted on %s: %w; unmount it by hand if it is meant to go", mounted.Device, mounted.Path, err)
}

func targetOf(r record) (iscsi.Target, error) {
	attachment, err := ParseAttachment(r.Device)
	return attachment.Target, err
}

// refuseOthers keeps a disk alive that is still mounted elsewhere: for a pod, or by hand.
func (d *Driver) refuseOthers(mounted mount.Mount) error {
	others, err := d.Mounter.Same(mounted)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Path != mounted.Path {
			return fmt.Errorf("%s is still mounted on %s: unmount that first (kubelet does when the pod is gone)", mounted.Device, other.Path)
		}
	}
	return nil
}

// releaseLeftover removes what a call that did not end left of a volume on this node.
func (d *Driver) releaseLeftover(ctx context.Context, key string) error {
	r, found := d.journal().read(key)
	if !found {
		return nil
	}
	target, err := targetOf(r)
	if err != nil {
		return d.journal().forget(key)
	}
	if err := d.removeDisk(ctx, key, target); err != nil {
		return err
	}
	return d.journal().forget(key)
}

// finishRemovals ends what earlier calls began and could not end. Volumes that somebody
// works on are passed over, and what fails is left to the next call.
func (d *Driver) finishRemovals(ctx context.Context) {
	if d.Config.Attach == AttachNone {
		d.abandonUnused(ctx)
	}
	for _, key := range d.journal().unfinished() {
		if err := d.ifFree(key, func() error { return d.finishRemoval(ctx, key) }); err != nil {
			d.Log.WarnContext(ctx, "an earlier removal is still unfinished", "volume", key, "error", err)
		}
	}
	for path, key := range d.journal().cutOff() {
		// Whoever is writing has the lock.
		_ = d.ifFree(key, func() error { return os.Remove(path) })
	}
}

func (d *Driver) finishRemoval(ctx context.Context, key string) error {
	r, err := readRecord(d.journal().leaving(key))
	if err != nil {
		return ignoreMissing(err)
	}
	if d.usedByOthers(key, r) {
		return d.journal().forget(key)
	}
	if r.Direct != nil {
		return d.releaseDirect(ctx, key, r)
	}
	return d.releaseLeftover(ctx, key)
}

// usedByOthers reports whether the disk of a record belongs to another record by now: a
// PersistentVolume that was made anew for the same volume may have another name.
func (d *Driver) usedByOthers(key string, r record) bool {
	target, err := targetOf(r)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(d.journal().used(), func(other string) bool {
		used, err := readRecord(d.journal().inUse(other))
		if err != nil || other == fileNameFor(key) {
			return false
		}
		theirs, err := targetOf(used)
		return err == nil && sameDisk(theirs, target)
	})
}
