package driver

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A node that lost its power comes back without sessions and mounts, but with the journal and the node records of the
// volumes that it had, and nobody calls for those that went to other nodes. The first call after a start that works on
// the node clears them away. Its marker is in the run directory, which no start outlives.

// abandonEarlierBoot marks as leaving what is of an earlier start of this machine and on no session.
func (d *Driver) abandonEarlierBoot(ctx context.Context) {
	marker := filepath.Join(d.Config.RunDir, "started")
	if _, err := os.Stat(marker); err == nil {
		return
	}
	started, err := startOfMachine()
	if err != nil {
		d.Log.WarnContext(ctx, "when this machine started is not known", "error", err)
		return
	}
	for _, key := range d.journal().used() {
		if err := d.ifFree(key, func() error { return d.abandonBefore(ctx, key, started) }); err != nil {
			d.Log.WarnContext(ctx, "a volume of an earlier start stays in the journal", "volume", key, "error", err)
			return
		}
	}
	if err := writeDurably(marker, nil); err != nil {
		d.Log.WarnContext(ctx, "the next call looks for volumes of an earlier start again", "error", err)
	}
}

func (d *Driver) abandonBefore(ctx context.Context, key string, started time.Time) error {
	info, err := os.Stat(d.journal().inUse(key))
	if err != nil || !info.ModTime().Before(started) {
		return ignoreMissing(err)
	}
	r, found := d.journal().read(key)
	if !found || r.Direct != nil {
		return nil // what mount attached by itself is looked after by abandonUnused
	}
	target, err := targetOf(r)
	if err != nil {
		return d.journal().forget(key)
	}
	if _, found, err := d.Initiator.Find(ctx, target); found || err != nil {
		return err
	}
	return d.journal().leave(key)
}

// startOfMachine is when the kernel began, by the clock of now.
func startOfMachine() (time.Time, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return time.Time{}, os.NewSyscallError("sysinfo", err)
	}
	return time.Now().Add(-time.Duration(info.Uptime) * time.Second), nil
}
