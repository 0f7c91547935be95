package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What is wrong with a mount.
var (
	ErrDeviceGone = errors.New("its device is gone")
	ErrShutDown   = errors.New("the kernel shut the file system down because of errors")
	ErrReadOnly   = errors.New("the kernel made the file system read-only because of errors")
	ErrFaulty     = errors.New("the file system met errors")
)

// All returns every mount of this mount namespace.
func (m *Mounter) All() ([]Mount, error) { return m.mounts() }

// Trouble tells what is wrong with a mounted file system: ErrDeviceGone, ErrShutDown, ErrReadOnly or ErrFaulty, or nil.
// It starts no program and does not wait for the device.
func (m *Mounter) Trouble(ctx context.Context, mount Mount) error {
	_, err := inContext(ctx, func() (struct{}, error) { return struct{}{}, m.trouble(mount) })
	return err
}

func (m *Mounter) trouble(mount Mount) error {
	number := deviceNumber{mount.Major, mount.Minor}
	if _, err := os.Lstat(m.sysfs(number)); mount.Major != 0 && errors.Is(err, fs.ErrNotExist) {
		return ErrDeviceGone
	}
	if err := m.dead(mount); errors.Is(err, unix.EIO) {
		return ErrShutDown
	} else if err != nil {
		return err
	}
	if mount.Filesystem != "ext4" {
		return nil
	}
	// Kernels before 6.12 make it read-only and leave its mounts read-write; those from 6.15 on say so, and that it is shut
	// down (fs/ext4/super.c). Those between, and stable ones that took over the change of 6.12, show only the count of errors.
	if slices.Contains(mount.SuperOptions, "emergency_ro") ||
		slices.Contains(mount.SuperOptions, "ro") && slices.Contains(mount.Options, "rw") && m.extErrors(mount) > 0 {
		return ErrReadOnly
	}
	if slices.Contains(mount.SuperOptions, "shutdown") {
		return ErrShutDown
	}
	if count := m.extErrors(mount); count > 0 {
		return fmt.Errorf("%w (%d, says ext4)", ErrFaulty, count)
	}
	return nil
}

// unusable tells why nothing new may use a mount: it is dead, or the kernel shut its ext4 down or made it read-only because of
// errors, which dead does not see.
func (m *Mounter) unusable(mount Mount) error {
	if reason := m.dead(mount); reason != nil {
		return reason
	}
	if reason := m.trouble(mount); errors.Is(reason, ErrShutDown) || errors.Is(reason, ErrReadOnly) {
		return reason
	}
	return nil
}

// extErrors is how many errors an ext4 has met since it was last checked (Documentation/ABI/testing/sysfs-fs-ext4).
func (m *Mounter) extErrors(mount Mount) int {
	name := filepath.Base(mount.Device)
	if link, err := os.Readlink(m.sysfs(deviceNumber{mount.Major, mount.Minor})); err == nil {
		name = filepath.Base(link)
	}
	text, _ := os.ReadFile(filepath.Join(m.opts.SysExt4, name, "errors_count"))
	count, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return count
}

// Holding returns the mount on which a path lies, whether the path exists or not.
func (m *Mounter) Holding(path string) (Mount, error) {
	real := filepath.Clean(path)
	for parent := real; ; parent = filepath.Dir(parent) {
		resolved, err := filepath.EvalSymlinks(parent)
		if err == nil {
			real = filepath.Join(resolved, strings.TrimPrefix(real, parent))
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || parent == "/" || parent == "." {
			return Mount{}, fmt.Errorf("find the mount of %s: %w", path, err)
		}
	}
	mounts, err := m.mounts()
	if err != nil {
		return Mount{}, err
	}
	for parent := real; ; parent = filepath.Dir(parent) {
		if top, mounted := topmost(mounts, parent); mounted {
			return top, nil
		}
		if parent == "/" || parent == "." {
			return Mount{}, fmt.Errorf("find the mount of %s: mountinfo has none", path)
		}
	}
}

// Users names all processes that have one of these block devices open, and mount namespaces in which one is mounted.
// It reads all of /proc or fails, so that naming nobody is a proof. The paths that multipathd has open for its maps do not
// count.
func (m *Mounter) Users(ctx context.Context, devices ...string) ([]string, error) {
	users, err := m.usersOf(ctx, devices)
	if err != nil {
		return nil, fmt.Errorf("look for users of %s: %w", strings.Join(devices, ", "), err)
	}
	return users, nil
}

func (m *Mounter) usersOf(ctx context.Context, devices []string) ([]string, error) {
	wanted := map[deviceNumber]bool{}
	for _, device := range devices {
		number, err := numberOf(device)
		if err != nil {
			return nil, err
		}
		wanted[number] = true
	}
	entries, err := os.ReadDir(m.opts.Proc)
	if err != nil {
		return nil, err
	}
	var users []string
	namespaces := map[string]bool{}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		process := filepath.Join(m.opts.Proc, entry.Name())
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		use, err := mountedIn(process, namespaces, wanted)
		if err == nil && use == "" && string(bytes.TrimSpace(name)) != "multipathd" {
			use, err = opens(process, wanted)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return nil, err
		case use != "":
			users = append(users, fmt.Sprintf("process %s (%s): %s", entry.Name(), bytes.TrimSpace(name), use))
		}
	}
	return users, nil
}

// mountedIn looks at the mounts of a process' namespace, if it is one that was not looked at before.
func mountedIn(process string, seen map[string]bool, wanted map[deviceNumber]bool) (string, error) {
	namespace, err := os.Readlink(filepath.Join(process, "ns/mnt"))
	if err != nil || seen[namespace] {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(process, "mountinfo"))
	if err != nil {
		return "", err
	}
	mounts, err := parseMounts(text)
	if err != nil {
		return "", err
	}
	seen[namespace] = true
	for _, mount := range mounts {
		if wanted[deviceNumber{mount.Major, mount.Minor}] {
			return "mounted at " + mount.Path, nil
		}
	}
	return "", nil
}

// opens looks for a device among a process' open files. Only what has the name of a device is looked at more closely: a
// file of a dead file system would not answer.
func opens(process string, wanted map[deviceNumber]bool) (string, error) {
	files, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		link := filepath.Join(process, "fd", file.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.Contains(target, "/dev/") {
			continue // closed meanwhile, or no device
		}
		if number, err := numberOf(link); err == nil && wanted[number] {
			return "has " + target + " open", nil
		}
	}
	return "", nil
}
