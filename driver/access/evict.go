package access

import (
	"context"
	"errors"
	"slices"
	"time"
)

// In attach mode none no controller guards a volume, and a node that is gone cannot say so. Who wants the volume joins, logs
// in without a LUN, and only then looks again: who evicts has a session, so of two nodes that meet at least one sees the
// other, in any order and at any speed.

const (
	// watchTime is how long a claim must be without a session before it is evicted: the margin for a line that is broken for
	// a moment, and for an array that ends sessions late or shows them late.
	watchTime  = 5 * time.Second
	watchPause = time.Second
)

// Confirm makes sure, after the login and before the scan for the LUN, that the node is alone, and evicts claims without a
// session. Where it fails the node logs out and then leaves.
func (c Claim) Confirm(ctx context.Context, volumeID string) error {
	_, stale, err := c.lookAgain(ctx, volumeID, groups{})
	if err != nil || len(stale) == 0 {
		return err
	}
	for watched := time.Duration(0); watched < watchTime; watched += watchPause {
		if pause(ctx, watchPause); ctx.Err() != nil {
			return c.failed("watch for sessions on", context.Cause(ctx))
		}
		_, still, err := c.lookAgain(ctx, volumeID, groups{})
		if err != nil {
			return err
		}
		if came := slices.DeleteFunc(still, func(h Holder) bool { return slices.Contains(stale, h) }); len(came) > 0 {
			return c.refuse(ctx, came)
		}
		stale = still
	}
	for _, h := range stale {
		if _, err := c.Array.RemoveMember(ctx, h.Group, h.IQN); err != nil {
			return c.failed("evict "+h.IQN+", which has no session, from", err)
		}
	}
	_, left, err := c.lookAgain(ctx, volumeID, groups{})
	return errors.Join(err, c.refuse(ctx, left))
}
