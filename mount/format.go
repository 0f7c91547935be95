package mount

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotBlank says that a device was not formatted because there is something on it.
var ErrNotBlank = errors.New("the device is not blank")

// FormatRequest says which file system to make on which device.
type FormatRequest struct {
	Device     string
	Filesystem string   // "xfs" or "ext4"
	Options    []string // words for mkfs, such as "-m", "reflink=0"
	Bytes      int64    // the exact size that the device must have; 0 is any
}

// Format makes a file system on a blank device. It proves the blankness itself, with the device closed to mounts and other
// claims, directly before mkfs runs; anything else than blank is refused with ErrNotBlank and a description. No mkfs is ever
// told to overwrite: for ext4 this proof is all there is, since mke2fs without a terminal overwrites without asking.
//
// A mkfs that has begun is not stopped: when ctx is done Format returns, and mkfs goes on to its end, for which the Runner
// keeps from it the SIGTERM that `systemctl restart kubelet` sends to all that kubelet started. Only SIGKILL ends it (systemd
// sends it after TimeoutStopSec, 90 s by default). Half a file system would block the device for good.
func (m *Mounter) Format(ctx context.Context, req FormatRequest) error {
	if err := m.format(ctx, req); err != nil {
		return fmt.Errorf("make %s on %s: %w", req.Filesystem, req.Device, err)
	}
	return nil
}

func (m *Mounter) format(ctx context.Context, req FormatRequest) error {
	syntax, args, err := mkfsCommand(req)
	if err != nil {
		return err
	}
	content, err := m.inspect(ctx, req.Device, true)
	if err != nil {
		return err
	}
	switch {
	case req.Bytes > 0 && content.Bytes != req.Bytes:
		return fmt.Errorf("the device has %d bytes, expected are %d: it may be the wrong device, so nothing was written; compare it with the volume on the storage, and attach it anew if that has grown", content.Bytes, req.Bytes)
	case !content.Blank:
		return fmt.Errorf("%w: %s. Nothing was changed; look at it with `blkid -p %s`", ErrNotBlank, content.Detail, req.Device)
	case content.Bytes < syntax.least:
		return fmt.Errorf("the device has %d bytes, but the smallest %s has %d", content.Bytes, req.Filesystem, syntax.least)
	}
	if err := m.runMkfs(ctx, syntax.program, args); err != nil {
		return err
	}
	content, err = m.inspect(ctx, req.Device, false)
	if err != nil {
		return err
	}
	if content.Filesystem != req.Filesystem || content.Damaged {
		return fmt.Errorf("%s reported success, but found on the device: %s", syntax.program, content.Detail)
	}
	m.log.Info("made a file system", "device", req.Device, "filesystem", req.Filesystem, "bytes", content.Bytes)
	return nil
}

func (m *Mounter) runMkfs(ctx context.Context, program string, args []string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	_, err := inContext(ctx, func() (struct{}, error) {
		out, err := m.run.Run(context.WithoutCancel(ctx), program, args...)
		return struct{}{}, programError(program, out, err)
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s is still running and will come to its end by itself: %w", program, err)
	}
	return err
}
