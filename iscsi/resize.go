package iscsi

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// resizeLimit is for multipathd's answer.
const resizeLimit = 30 * time.Second

// Resize makes the kernel see the new size of a device whose volume has grown, and returns it in bytes. It asks again
// until wantBytes are there or ctx is done; with wantBytes 0 it asks once.
func (i *Initiator) Resize(ctx context.Context, device Device, wantBytes int64) (int64, error) {
	bytes, err := i.resize(ctx, device, wantBytes)
	if err != nil {
		return bytes, fmt.Errorf("resize %s (%s): %w", device.Path, device.Target, err)
	}
	return bytes, nil
}

func (i *Initiator) resize(ctx context.Context, device Device, wantBytes int64) (int64, error) {
	if err := device.Target.validate(); err != nil {
		return 0, err
	}
	v, err := i.look(device.Target)
	if err != nil {
		return 0, err
	}
	disks := i.usable(v)
	if len(disks) == 0 {
		return 0, errors.New("no disk of this volume takes I/O here")
	}
	mapped, err := i.mapOver(v.disks)
	if err != nil {
		return 0, err
	}
	smallest := int64(-1)
	for _, d := range disks {
		bytes, err := i.growDisk(ctx, d, wantBytes)
		if err != nil {
			return max(smallest, 0), err
		}
		if smallest < 0 || bytes < smallest {
			smallest = bytes
		}
	}
	if mapped == "" {
		return smallest, nil
	}
	return i.growMap(ctx, mapped, smallest)
}

// growDisk rescans one disk until it has the size.
func (i *Initiator) growDisk(ctx context.Context, d disk, wantBytes int64) (int64, error) {
	bytes, err := i.bytes(d.name)
	if err != nil || wantBytes > 0 && bytes >= wantBytes {
		return bytes, err
	}
	bytes, err = poll(ctx, func() (int64, bool, error) {
		if err := bounded(ctx, func() error { return i.rescan(d) }); err != nil {
			return bytes, false, fmt.Errorf("rescan %s: %w", d, err)
		}
		now, err := i.bytes(d.name)
		return now, now >= wantBytes, err
	})
	if ctx.Err() != nil && err != nil {
		return bytes, fmt.Errorf("%s has %d bytes, expected %d: has the array grown the volume? %w", d, bytes, wantBytes, err)
	}
	return bytes, err
}

// growMap makes a multipath map as large as its paths.
func (i *Initiator) growMap(ctx context.Context, mapped string, wantBytes int64) (int64, error) {
	bytes, err := i.bytes(mapped)
	if err != nil || bytes >= wantBytes {
		return bytes, err
	}
	alias, err := i.mapAlias(mapped)
	if err != nil {
		return bytes, err
	}
	if err := i.program(ctx, resizeLimit, "resize multipath map "+alias, "multipathd", "resize", "map", alias); err != nil {
		return bytes, err
	}
	bytes, err = poll(ctx, func() (int64, bool, error) {
		now, err := i.bytes(mapped)
		return now, now >= wantBytes, err
	})
	if err != nil {
		return bytes, fmt.Errorf("multipath map %s has %d bytes, its paths %d: %w", alias, bytes, wantBytes, err)
	}
	return bytes, nil
}
