// Package mount turns a block device into a mounted file system and back: it proves that a device is
// blank, makes a file system on it, mounts, binds, unmounts within a limit of time, and grows.
//
// What is mounted where is read from mountinfo alone. Nothing below a mount point is opened or listed,
// because the device behind it may no longer answer; the root of a mounted xfs or ext4 may be looked at
// by stat, which the kernel answers from memory (with EIO once it has shut the file system down).
package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Runner starts one program, waits for it to end and returns all it wrote (stdout and stderr together).
// The error of a program that ended by itself unwraps to something with ExitCode() int; the error of a
// program that is not installed unwraps to exec.ErrNotFound.
//
// With a ctx that is never done (Done is nil) the program must come to its end, whatever becomes of this process: SIGTERM,
// SIGINT, SIGHUP and SIGPIPE should not end it.
type Runner interface {
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
}

// Options are the settings of a Mounter. The zero value suits a Linux host.
type Options struct {
	MountInfo      string        // "" is /proc/self/mountinfo
	SysDevBlock    string        // where the kernel lists block devices by number; "" is /sys/dev/block
	SysExt4        string        // where ext4 lists its file systems; "" is /sys/fs/ext4
	KernelLog      string        // where the reason for a refused mount is read; "" is /dev/kmsg
	Proc           string        // where the users of a busy mount are looked for; "" is /proc
	Logger         *slog.Logger  // nil is silent
	UnmountTimeout time.Duration // limit of one unmount, within its context; 0 is 30 s
	BusyTimeout    time.Duration // how long a busy mount is tried again; 0 is 1 s
}

// Mounter formats, mounts, unmounts and grows. It keeps no state: the kernel is the truth.
// It may be used by several goroutines at once, but two calls on one device or one path are for the
// caller to keep apart.
type Mounter struct {
	run  Runner
	opts Options
	log  *slog.Logger
}

// New returns a Mounter that starts its programs (mount, umount, mkfs.*, xfs_growfs, resize2fs) with run.
func New(run Runner, opts Options) *Mounter {
	setDefault(&opts.MountInfo, "/proc/self/mountinfo")
	setDefault(&opts.SysDevBlock, "/sys/dev/block")
	setDefault(&opts.SysExt4, "/sys/fs/ext4")
	setDefault(&opts.KernelLog, "/dev/kmsg")
	setDefault(&opts.Proc, "/proc")
	setDefault(&opts.UnmountTimeout, 30*time.Second)
	setDefault(&opts.BusyTimeout, time.Second)
	setDefault(&opts.Logger, slog.New(slog.DiscardHandler))
	return &Mounter{run: run, opts: opts, log: opts.Logger}
}

func setDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// poll calls check at once and then in growing steps for as long as it returns the error again, until ctx is done
// or the limit is over; then that error is returned.
func poll(ctx context.Context, limit time.Duration, again error, check func() error) error {
	var last error
	steps := &backoff.ExponentialBackOff{InitialInterval: 10 * time.Millisecond, Multiplier: 1.5, MaxInterval: 200 * time.Millisecond}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = check()
		if last != nil && !errors.Is(last, again) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(steps), backoff.WithMaxElapsedTime(limit))
	if err == nil {
		return nil
	}
	return last
}

// guarded makes a panic an error: in a goroutine it would end the process in the middle of everything.
func guarded[T any](run func() (T, error)) (value T, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("fault in package mount: %v\n%s", cause, debug.Stack())
		}
	}()
	return run()
}

// inContext runs a function that may block in the kernel and returns when it does or when ctx is done.
// In the second case the function goes on alone, so it must own all that it uses.
func inContext[T any](ctx context.Context, run func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := guarded(run)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
