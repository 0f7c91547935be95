package driver

import (
	"context"
	"errors"
	"fmt"

	"datera-flexvolume/datera"
)

// What the provisioner needs: it makes volumes when they are claimed, and deletes them
// when their PersistentVolumes go.

// Provision makes the volume of a claim and waits until it can be used. It can be
// repeated: it goes on where it was cut off, and never takes over what it did not make. It
// returns the volume's size in GiB, which for a clone may be more than was asked for.
func (d *Driver) Provision(ctx context.Context, volume Volume) (sizeGiB int64, err error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return 0, err
	}
	unlock, err := d.lockVolume(ctx, volume.Name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	created := false
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		ai, created, err = array.CreateAppInstance(ctx, d.request(volume))
		err = d.explainCreate(err, volume)
	}
	if err == nil {
		err = d.madeFor(ai, volume)
	}
	if err != nil {
		return 0, fmt.Errorf("provision volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	if ai, err = d.ready(ctx, array, ai, created, volume); err != nil {
		return 0, err
	}
	onArray, err := ai.Volume()
	if err != nil {
		return 0, err
	}
	return onArray.SizeGiB, nil
}

// Grow makes a volume on the array at least so many bytes large, and returns its size in
// bytes. Disk and file system are the node's to grow.
func (d *Driver) Grow(ctx context.Context, volume Volume, bytes int64) (int64, error) {
	return d.expandVolume(ctx, volume, bytes)
}

// IsProvisioned reports whether the volume is on the array and was made for its
// PersistentVolume.
func (d *Driver) IsProvisioned(ctx context.Context, volume Volume) (bool, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return false, err
	}
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	return d.madeFor(ai, volume) == nil, nil
}

// PlaceOf is where the configuration, or the volume's secret, looks for a volume: array
// and tenant.
func (d *Driver) PlaceOf(volume Volume) (string, error) {
	at, err := d.Config.connectionFor(volume)
	if err != nil {
		return "", err
	}
	return at.Credentials.Server.canonical().String() + d.tenantOf(volume), nil
}

// WasAttached reports whether any node ever had the volume: the first attach leaves a reference in its ACL policy.
func (d *Driver) WasAttached(ctx context.Context, volume Volume) (bool, error) {
	array, err := d.arrayFor(volume)
	if err != nil {
		return false, err
	}
	ai, err := array.AppInstance(ctx, volume.AppInstance)
	if errors.Is(err, datera.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask %s whether a node has had volume %s: %w", array.Server(), volume.AppInstance, err)
	}
	return everClaimed(ai), nil
}

// madeFor proves that an app instance was made for a volume of this cluster.
func (d *Driver) madeFor(ai *datera.AppInstance, volume Volume) error {
	if d.Config.describes(ai.Descr, volume.Name) {
		return nil
	}
	return fmt.Errorf("it is there, but was not made for this PersistentVolume: its description is %s, not %q; "+
		"it is left alone (if it is this volume after all, correct the description on the array)", quoteShort(ai.Descr), d.Config.descriptionOf(volume.Name))
}

// SourceOf is the path on the array of a volume that another one is to be a clone of. Both
// must be in one tenant of one array.
func (d *Driver) SourceOf(ctx context.Context, source, clone Volume) (string, error) {
	array, err := d.arrayFor(source)
	if err != nil {
		return "", err
	}
	from, fromErr := d.Config.connectionFor(source)
	to, toErr := d.Config.connectionFor(clone)
	if err := errors.Join(fromErr, toErr); err != nil {
		return "", err
	}
	if !from.Credentials.Server.sameArray(to.Credentials.Server) || d.tenantOf(source) != d.tenantOf(clone) {
		return "", fmt.Errorf("volume %s is in tenant %s of %s, its clone would be in tenant %s of %s: a clone stays in the tenant and on the array of its source",
			source.AppInstance, d.tenantOf(source), from.Credentials.Server, d.tenantOf(clone), to.Credentials.Server)
	}
	ai, err := array.AppInstance(ctx, source.AppInstance)
	if err != nil {
		return "", fmt.Errorf("look for volume %s, the source of the clone, on %s: %w", source.AppInstance, array.Server(), err)
	}
	onArray, err := ai.Volume()
	if err != nil {
		return "", fmt.Errorf("volume %s, the source of the clone: %w", source.AppInstance, err)
	}
	return onArray.Path, nil
}
