package iscsi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// lock takes the lock on one target, across processes. The kernel drops it when its holder dies.
//
// It guards logins and logouts: two logins at once make two sessions or a damaged record, and a logout must not meet
// another volume's login on the same session.
func (i *Initiator) lock(ctx context.Context, iqn string) (release func(), err error) {
	sum := sha256.Sum256([]byte(strings.ToLower(iqn)))
	release, err = i.lockFile(ctx, "target-"+hex.EncodeToString(sum[:8]))
	if err != nil {
		return nil, fmt.Errorf("wait for another call that works on target %s: %w", iqn, err)
	}
	return release, nil
}

func (i *Initiator) lockFile(ctx context.Context, name string) (release func(), err error) {
	if err := os.MkdirAll(i.opt.LockDir, 0o700); err != nil {
		return nil, err
	}
	file := flock.New(filepath.Join(i.opt.LockDir, name))
	if _, err := file.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", file.Path(), err)
	}
	return func() { _ = file.Unlock() }, nil
}
