package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Poll calls check until it returns nil: at once, then every 0.3 s. When ctx is done its error holds the last one of check.
func Poll(ctx context.Context, check func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, check() },
		backoff.WithBackOff(backoff.NewConstantBackOff(300*time.Millisecond)), backoff.WithMaxElapsedTime(0))
	return err
}

// Fatal marks an error after which Poll does not go on.
func Fatal(err error) error { return backoff.Permanent(err) }

// Within is Poll with a time limit; what names the thing that is waited for.
func Within(ctx context.Context, limit time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	err := Poll(ctx, func() error {
		last = check()
		return last
	})
	if err == nil {
		return nil
	}
	if last == nil {
		last = err
	}
	return fmt.Errorf("not within %s: %s: %w", limit, what, last)
}
