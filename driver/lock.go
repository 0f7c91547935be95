package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const lockPoll = 10 * time.Millisecond

// lockVolume makes this process the only one on the host that works on a volume. The
// kernel drops the lock with the process; waiting counts against the call's deadline.
func (d *Driver) lockVolume(ctx context.Context, key string) (unlock func(), err error) {
	lock, err := d.volumeLock(key)
	if err != nil {
		return nil, err
	}
	locked, err := lock.TryLockContext(ctx, lockPoll)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("lock volume %s: %w", key, err)
	}
	if err != nil || !locked {
		return nil, fmt.Errorf("wait for another call that works on volume %s: %w; kubelet tries again by itself", key, err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// ifFree works on a volume that nobody else works on now, and does nothing otherwise.
func (d *Driver) ifFree(key string, work func() error) error {
	lock, err := d.volumeLock(key)
	if err != nil {
		return err
	}
	if locked, err := lock.TryLock(); err != nil || !locked {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	return work()
}

func (d *Driver) volumeLock(key string) (*flock.Flock, error) {
	dir := filepath.Join(d.Config.RunDir, "lock")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the locks: %w", err)
	}
	return flock.New(filepath.Join(dir, "volume-"+fileNameFor(key)), flock.SetPermissions(0o600)), nil
}
