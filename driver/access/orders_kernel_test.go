package access_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// A kernel is a node's iSCSI initiator and its mounts, as far as attach mode none and the looks for two writers need them.
type kernel struct {
	world   *world
	iqn     string
	caller  *caller // whose call the node works on
	target  iscsi.Target
	in      string // the volume, by UUID, that the initiator is logged in to, and comes back to; "": none
	scanned bool
	dirty   bool // the LUN was scanned while another node had it mounted and wrote
	mounted bool
	writes  bool
	mounts  []mount.Mount
}

func (k *kernel) String() string {
	return fmt.Sprint(k.in != "", k.scanned, k.dirty, k.mounted, len(k.mounts))
}

const disk = "/dev/sdb"

var errNoSession = errors.New("the session has ended")

// use is what a node does that was told that it has the volume (attach mode controller): it logs in and mounts.
func (k *kernel) use(readOnly bool) {
	if id, yes := k.world.letsIn(k.iqn); yes {
		k.in, k.mounted, k.writes = id, true, !readOnly
	}
}

func (k *kernel) stop() {
	k.mounts = nil
	k.in, k.scanned, k.dirty, k.mounted, k.writes = "", false, false, false, false
	delete(k.world.sessions, k.iqn)
}

func (k *kernel) live() bool { return k.world.sessions[k.iqn] != "" }

// step is one on the node within a call. What it changes no request may have to wait for.
func (k *kernel) step(ctx context.Context, label string, do func() error) (err error) {
	k.caller, _ = ctx.Value(callerKey{}).(*caller)
	k.caller.step(label, false, func() { err = do() })
	return err
}

func (k *kernel) Name() (string, error) { return k.iqn, nil }

func (k *kernel) Attach(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) (iscsi.Device, error) {
	if err := k.Login(ctx, target, chap); err != nil {
		return iscsi.Device{}, err
	}
	return k.Scan(ctx, target)
}

func (k *kernel) Login(ctx context.Context, target iscsi.Target, _ iscsi.CHAP) error {
	if k.live() {
		return nil
	}
	return k.step(ctx, "logs in", func() error {
		id, yes := k.world.letsIn(k.iqn)
		if !yes {
			k.caller.learns("refused")
			return iscsi.ErrRefused
		}
		k.in, k.target = id, target
		return nil
	})
}

func (k *kernel) LoggedIn(iscsi.Target) (bool, error) {
	live := k.live()
	k.caller.learns(fmt.Sprint(live))
	return live, nil
}

func (k *kernel) Scan(ctx context.Context, target iscsi.Target) (iscsi.Device, error) {
	err := k.step(ctx, "scans", func() error {
		if !k.live() {
			k.caller.learns("no session")
			return iscsi.ErrNoSession
		}
		k.scanned = true
		for _, other := range k.world.kernels {
			k.dirty = k.dirty || other != k && other.mounted && other.writes && other.live()
		}
		return nil
	})
	return k.device(target), err
}

func (k *kernel) device(target iscsi.Target) iscsi.Device {
	return iscsi.Device{Path: disk, Paths: []string{disk}, Target: target, Bytes: 10 << 30}
}

func (k *kernel) Find(_ context.Context, target iscsi.Target) (iscsi.Device, bool, error) {
	return k.device(target), k.scanned, nil
}

func (k *kernel) Identify(string) (iscsi.Device, error) { return k.device(k.target), nil }

func (k *kernel) Detach(ctx context.Context, _ iscsi.Target) error {
	if k.in == "" {
		return nil
	}
	return k.step(ctx, "logs out", func() error {
		if k.mounted {
			return errors.New("the disk is mounted")
		}
		k.stop()
		return nil
	})
}

func (k *kernel) Resize(_ context.Context, device iscsi.Device, _ int64) (int64, error) {
	return device.Bytes, nil
}

func (k *kernel) Inspect(context.Context, string) (mount.Content, error) {
	return mount.Content{Filesystem: "xfs"}, nil
}

func (k *kernel) Format(context.Context, mount.FormatRequest) error {
	return errors.New("the disk is not blank")
}

func (k *kernel) Mount(ctx context.Context, device, path, filesystem string, options mount.MountOptions) error {
	return k.step(ctx, "mounts", func() error {
		if !k.live() {
			k.caller.learns("no session")
			return errNoSession
		}
		k.mounted, k.writes = true, !options.ReadOnly
		k.mounts = append(k.mounts, mount.Mount{Device: device, Path: path, Root: "/", Filesystem: filesystem, ReadOnly: options.ReadOnly})
		return nil
	})
}

func (k *kernel) Bind(_ context.Context, source, path string, readOnly bool) error {
	mounted, found, _ := k.At(source)
	if !found {
		return errors.New("nothing is mounted there")
	}
	mounted.Path, mounted.ReadOnly = path, readOnly
	k.mounts = append(k.mounts, mounted)
	return nil
}

func (k *kernel) Unmount(_ context.Context, path string) error {
	if _, found, _ := k.At(path); !found {
		return nil
	}
	k.mounts = slices.DeleteFunc(k.mounts, func(m mount.Mount) bool { return m.Path == path })
	k.mounted = len(k.mounts) > 0
	return nil
}

func (k *kernel) Released(context.Context, string) error { return nil }

func (k *kernel) RemoveDir(string) error { return nil }

func (k *kernel) At(path string) (mount.Mount, bool, error) {
	if i := slices.IndexFunc(k.mounts, func(m mount.Mount) bool { return m.Path == path }); i >= 0 {
		return k.mounts[i], true, nil
	}
	return mount.Mount{}, false, nil
}

func (k *kernel) Same(mount.Mount) ([]mount.Mount, error) { return slices.Clone(k.mounts), nil }

func (k *kernel) Grow(context.Context, string, string, string) error { return nil }
