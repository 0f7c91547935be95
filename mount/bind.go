package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const directoryMode = 0o750

// Bind shows what is mounted at source a second time at path, read-only if wanted. It starts no program. It creates the
// directory. The same bind already there is success.
//
// Source must be a mount point: binding a bare directory would send all writes to the host's own disk.
func (m *Mounter) Bind(ctx context.Context, source, path string, readOnly bool) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	from, err := m.livingSource(source)
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, path, err)
	}
	if err := m.bind(ctx, from, path, readOnly); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, path, err)
	}
	return nil
}

func (m *Mounter) livingSource(source string) (Mount, error) {
	from, mounted, err := m.At(source)
	if err != nil {
		return Mount{}, err
	}
	if !mounted {
		return Mount{}, fmt.Errorf("nothing is mounted at %s", source)
	}
	if reason := m.unusable(from); reason != nil {
		return Mount{}, fmt.Errorf("the mount cannot be used any more: %s: %w; the pods that use the volume on this node must go, so that it is mounted anew",
			from, reason)
	}
	return from, nil
}

func (m *Mounter) bind(ctx context.Context, from Mount, path string, readOnly bool) error {
	there, mounted, err := m.At(path)
	if err != nil {
		return err
	}
	if mounted && !there.showsSameAs(from) && m.dead(there) != nil {
		if err := m.Unmount(ctx, path); err != nil {
			return err
		}
		mounted = false
	}
	if mounted {
		return m.settleBind(from, there, readOnly)
	}
	// What is no directory is named below, by what it is.
	if err := os.MkdirAll(path, directoryMode); err != nil && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	path, err = canonical(path)
	if err != nil {
		return err
	}
	if err := mustBeEmptyDirectory(path); err != nil {
		return err
	}
	if err := unix.Mount(from.Path, path, "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if !readOnly {
		return nil
	}
	if err := makeReadOnly(path, from); err != nil {
		return errors.Join(err, os.NewSyscallError("umount2", unix.Unmount(path, unix.UMOUNT_NOFOLLOW)))
	}
	return nil
}

// settleBind judges a mount that is at the path already.
func (m *Mounter) settleBind(from, there Mount, readOnly bool) error {
	switch {
	case !there.showsSameAs(from):
		return occupied(there)
	case there.ReadOnly == (readOnly || from.ReadOnly):
		return nil
	case readOnly: // a bind that ended between its two steps
		return makeReadOnly(there.Path, there)
	}
	return fmt.Errorf("it is there already, but read-only: %s; %s", there, unmountFirst(there))
}

// ErrOccupied says that something else is mounted at a path.
var ErrOccupied = errors.New("something else is mounted there")

func occupied(there Mount) error {
	return fmt.Errorf("%w: %s; %s", ErrOccupied, there, unmountFirst(there))
}

func unmountFirst(there Mount) string {
	return "if nobody needs that, unmount it by hand: `umount " + there.Path + "`"
}

// makeReadOnly sets one mount read-only. The kernel takes the flags of a remount as the whole truth, so those that the
// mount has must be named again (mount(2)).
func makeReadOnly(path string, like Mount) error {
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	for option, flag := range map[string]uintptr{
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"nosymfollow": unix.MS_NOSYMFOLLOW,
	} {
		if slices.Contains(like.Options, option) {
			flags |= flag
		}
	}
	if flags&(unix.MS_NOATIME|unix.MS_RELATIME) == 0 {
		flags |= unix.MS_STRICTATIME
	}
	return os.NewSyscallError("remount read-only", unix.Mount("", path, "", flags, ""))
}

// mustBeEmptyDirectory refuses anything but an empty directory as a mount point. The caller knows that nothing is
// mounted there.
func mustBeEmptyDirectory(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory (%s)", path, info.Mode().Type())
	}
	names, err := entries(path)
	if err != nil {
		return err
	}
	if names != "" {
		return fmt.Errorf("the directory %s is not empty (%s) and a mount would hide that: %s", path, names, strayContent)
	}
	return nil
}

const strayContent = "it was written to the host's own disk while the volume was not mounted; save it and empty the directory by hand"

// entries names a few entries of a directory that is not mounted; "" when there are none.
func entries(path string) (string, error) {
	const few = 3
	dir, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(few + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if len(names) > few {
		names[few] = "…"
	}
	return strings.Join(names, ", "), nil
}
