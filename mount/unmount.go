package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy says that a mount is in use.
var ErrBusy = errors.New("it is in use")

// Unmount removes all mounts at path, the topmost first, and leaves the directory. Nothing mounted is success.
// The call is limited by the UnmountTimeout.
//
// The last mount of a file system is removed by umount(8): the kernel then writes out what is dirty, and a caller
// stuck in that on a dead device cannot even exit, while a program can be left behind.
//
// One that is in use stays, unless it is dead: then it is taken out of the directory tree at once and vanishes with its
// last user, who may never end. Until then Released says so. On a living device that would hide a file system that is
// still written to.
func (m *Mounter) Unmount(ctx context.Context, path string) error {
	return m.unmountAll(ctx, path, true)
}

// unmountAll is Unmount; without leaveUsers a dead mount that is in use stays, too.
func (m *Mounter) unmountAll(ctx context.Context, path string, leaveUsers bool) error {
	limit, cancel := context.WithTimeout(ctx, m.opts.UnmountTimeout)
	defer cancel()
	for previous := (Mount{}); ; {
		top, mounted, err := m.At(path)
		if err != nil || !mounted {
			return err
		}
		if top.id == previous.id {
			return fmt.Errorf("unmount %s: umount reported success, and it is still mounted", top)
		}
		err = m.unmountTop(limit, top, false)
		if errors.Is(err, ErrBusy) && leaveUsers {
			if reason := m.dead(top); reason != nil {
				m.log.Warn("taking a dead mount out of the tree that is still in use", "path", top.Path, "device", top.Device, "reason", reason)
				err = m.unmountTop(limit, top, true)
			}
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", top, m.explainUnmount(ctx, limit, top, err))
		}
		m.log.Debug("unmounted", "path", top.Path, "device", top.Device)
		previous = top
	}
}

// unmountTop removes one mount. One that is busy is tried again for a while: a scan by udev or a backup ends soon.
func (m *Mounter) unmountTop(ctx context.Context, top Mount, lazy bool) error {
	return poll(ctx, m.opts.BusyTimeout, ErrBusy, func() error {
		last, err := m.isLast(top)
		if err != nil {
			return err
		}
		if last {
			err = m.unmountByProgram(ctx, top, lazy)
		} else {
			err = unmountDirectly(top, lazy)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if now, mounted, readErr := m.At(top.Path); readErr == nil && (!mounted || now.id != top.id) {
			return nil // somebody else was faster
		}
		return err
	})
}

func (m *Mounter) isLast(mount Mount) (bool, error) {
	mounts, err := m.Same(mount)
	return len(mounts) <= 1, err
}

func unmountDirectly(top Mount, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(top.Path, flags)
	if errors.Is(err, unix.EBUSY) {
		return ErrBusy
	}
	return os.NewSyscallError("umount2", err)
}

func (m *Mounter) unmountByProgram(ctx context.Context, top Mount, lazy bool) error {
	args := []string{top.Path}
	if lazy {
		args = []string{"-l", top.Path}
	}
	out, err := m.run.Run(ctx, "umount", args...)
	if _, ended := exitCode(err); ended && saysBusy(string(out), top.Path) {
		return ErrBusy
	}
	return programError("umount", out, err)
}

// saysBusy looks at what umount said, without the path, which may hold any words. The second wording is the kernel's
// (strerror(3)).
func saysBusy(said, path string) bool {
	said = strings.ToLower(strings.ReplaceAll(said, path, ""))
	return strings.Contains(said, "target is busy") || strings.Contains(said, "device or resource busy")
}

func (m *Mounter) explainUnmount(ctx, limit context.Context, top Mount, err error) error {
	switch {
	case errors.Is(err, ErrBusy):
		if users := m.usersOfPath(ctx, top.Path); users != "" {
			return fmt.Errorf("%w: %s", err, users)
		}
		return fmt.Errorf("%w, by no process that can be seen: perhaps a loop device, a swap file or an export of the kernel", err)
	case ctx.Err() == nil && limit.Err() != nil:
		return fmt.Errorf("not done within %s: its device does not answer; the kernel may still be writing to it (%w)",
			m.opts.UnmountTimeout.Round(time.Millisecond), err)
	}
	return err
}

// ErrHasContent says that a directory is not empty, so that it stays.
var ErrHasContent = errors.New("it has content")

// RemoveDir removes the directory at path if it is empty. One that does not exist is success; one that is
// mounted, or has anything in it (ErrHasContent), is an error and stays as it is.
func (m *Mounter) RemoveDir(path string) error {
	top, mounted, err := m.At(path)
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("remove directory %s: still mounted: %s", path, top)
	}
	err = unix.Rmdir(path)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		names, _ := entries(path)
		return fmt.Errorf("remove directory %s: nothing is mounted there, but %w (%s): %s", path, ErrHasContent, names, strayContent)
	}
	return fmt.Errorf("remove directory %s: %w", path, err)
}
