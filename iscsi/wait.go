package iscsi

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// poll calls look at once, and then at growing intervals until it has what it looks for, fails, or ctx is done.
func poll[T any](ctx context.Context, look func() (T, bool, error)) (T, error) {
	errNotYet := errors.New("not yet")
	return backoff.Retry(ctx, func() (T, error) {
		value, found, err := look()
		switch {
		case err != nil:
			return value, backoff.Permanent(err)
		case !found:
			return value, errNotYet
		}
		return value, nil
	}, backoff.WithBackOff(growing(10*time.Millisecond, 200*time.Millisecond)), backoff.WithMaxElapsedTime(0))
}

func growing(first, longest time.Duration) backoff.BackOff {
	return &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 1.5, MaxInterval: longest}
}

// guarded makes a panic an error: in a goroutine it would end the process in the middle of everything.
func guarded(call func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("fault in package iscsi: %v\n%s", cause, debug.Stack())
		}
	}()
	return call()
}

// bounded makes a call that the kernel does not let go of (a write to sysfs, a flush: they wait for the target), and
// leaves it to itself when ctx is done. It ends when the session's replacement timeout is over.
func bounded(ctx context.Context, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- guarded(call) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
