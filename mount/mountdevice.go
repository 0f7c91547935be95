package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
)

// MountOptions says how a device is mounted.
type MountOptions struct {
	ReadOnly bool
	Options  []string // one option each, as after mount's -o
}

// Mount mounts a device with an xfs or ext4 file system at path and creates the directory. The same device already
// mounted there in the same way is success; another one is an error. What a vanished device or a file system that the kernel
// has shut down, or made read-only because of errors, left there is unmounted first; as long as that has other mounts, it is
// an error. Mount never makes or repairs a file system.
//
// Read-only means that nothing is written to the device, not even the replay of a journal: two hosts may
// mount it at once. A file system that was not cleanly unmounted is therefore refused.
func (m *Mounter) Mount(ctx context.Context, device, path, filesystem string, opts MountOptions) error {
	words, readOnly, err := mountWords(filesystem, opts)
	if err == nil {
		err = m.mountDevice(ctx, device, path, filesystem, words, readOnly)
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s at %s: %w", filesystem, device, path, err)
	}
	return nil
}

func (m *Mounter) mountDevice(ctx context.Context, device, path, filesystem string, words []string, readOnly bool) error {
	if !strings.HasPrefix(device, "/") {
		return fmt.Errorf("device %q is not an absolute path", device)
	}
	number, err := numberOf(device)
	if err != nil {
		return err
	}
	mounted, err := m.settle(ctx, number, path, filesystem, readOnly)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return err
	}
	path, err = canonical(path)
	if err != nil {
		return err
	}
	if err := mustBeEmptyDirectory(path); err != nil {
		return err
	}
	if err := m.protect(device, readOnly); err != nil {
		return err
	}
	if err := m.runMount(ctx, device, path, filesystem, words, readOnly); err != nil {
		// The program of an earlier caller that was killed may have come first.
		if mounted, settleErr := m.settle(ctx, number, path, filesystem, readOnly); settleErr == nil && mounted {
			return nil
		}
		return err
	}
	return m.confirm(ctx, number, path, filesystem, readOnly)
}

// settle looks at what is mounted at path already; true when that is what is wanted.
func (m *Mounter) settle(ctx context.Context, number deviceNumber, path, filesystem string, readOnly bool) (bool, error) {
	there, mounted, err := m.At(path)
	if err != nil || !mounted {
		return false, err
	}
	if reason := m.unusable(there); reason != nil {
		if there.isOf(number) {
			if err := m.refuseIfHeld(there, reason); err != nil {
				return false, err
			}
		}
		m.log.Warn("removing a dead mount", "path", there.Path, "device", there.Device, "reason", reason)
		// As long as anybody uses it, a new mount of the same device would get the dead file system again.
		return false, m.unmountAll(ctx, path, !there.isOf(number))
	}
	switch {
	case !there.isOf(number):
		return false, occupied(there)
	case there.Filesystem != filesystem || there.Root != "/":
		return false, fmt.Errorf("it is mounted there already, but as %s of directory %s; %s", there.Filesystem, there.Root, unmountFirst(there))
	case there.ReadOnly != readOnly:
		return false, fmt.Errorf("it is mounted there already, but otherwise: %s; %s", there, unmountFirst(there))
	}
	return true, nil
}

// refuseIfHeld refuses to replace a dead file system that other mounts keep alive: a new mount would get the dead one again.
func (m *Mounter) refuseIfHeld(dead Mount, reason error) error {
	mounts, err := m.Same(dead)
	if err != nil {
		return err
	}
	var others []string
	for _, mount := range mounts {
		if mount.Path != dead.Path {
			others = append(others, mount.Path)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return fmt.Errorf("what is mounted at %s is dead: %w; it stays so until these other mounts of it are removed (the pods that use the volume on this node must go), and is mounted anew then: %s", dead.Path, reason, strings.Join(others, ", "))
}

// protect makes the device itself read-only for a read-only mount, and writable for another. xfs and ext4 replay a journal
// even when they are mounted read-only; only on a read-only device they refuse to.
func (m *Mounter) protect(device string, readOnly bool) error {
	others, err := m.Of(device)
	if err != nil || len(others) > 0 { // the flag belongs to those who have it mounted
		return err
	}
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	is, err := unix.IoctlGetInt(fd, unix.BLKROGET)
	if err != nil {
		return os.NewSyscallError("ioctl BLKROGET", err)
	}
	if (is != 0) == readOnly {
		return nil
	}
	wanted := 0
	if readOnly {
		wanted = 1
	}
	if err := unix.IoctlSetPointerInt(fd, unix.BLKROSET, wanted); err != nil && readOnly {
		return os.NewSyscallError("ioctl BLKROSET", err)
	}
	return nil // a device that stays write-protected is reported by confirm
}

func (m *Mounter) runMount(ctx context.Context, device, path, filesystem string, words []string, readOnly bool) error {
	kernel := openKernelLog(m.opts.KernelLog)
	defer kernel.close()
	out, err := m.run.Run(ctx, "mount", mountutils.MakeMountArgs(device, path, filesystem, words)...)
	if err == nil {
		return nil
	}
	code, ended := exitCode(err)
	err = programError("mount", out, err)
	if !ended {
		return err
	}
	said := kernel.about(device)
	if said != "" {
		err = fmt.Errorf("%w; kernel: %s", err, said)
	}
	if content, inspectErr := m.inspect(ctx, device, false); inspectErr == nil && (content.Filesystem != filesystem || content.Damaged) {
		return fmt.Errorf("on the device: %s: %w", content.Detail, err)
	}
	if reason := mountReason(code, string(out)+said, device, filesystem, readOnly); reason != "" {
		return fmt.Errorf("%s: %w", reason, err)
	}
	return err
}

// confirm reads back what mount(8) reported: it answers 0 too when it fell back to read-only on a write-protected device.
func (m *Mounter) confirm(ctx context.Context, number deviceNumber, path, filesystem string, readOnly bool) error {
	there, mounted, err := m.At(path)
	switch {
	case err != nil:
		return err
	case !mounted || !there.isOf(number) || there.Filesystem != filesystem:
		return errors.New("mount reported success, but the device is not mounted there")
	case there.ReadOnly && !readOnly:
		err := errors.New("the device is write-protected, so it was mounted read-only; ask for a read-only mount, " +
			"or let the storage give this host write access")
		return errors.Join(err, m.Unmount(ctx, path))
	case readOnly && !there.ReadOnly:
		return errors.Join(errors.New("it was not mounted read-only"), m.Unmount(ctx, path))
	}
	m.log.Debug("mounted", "device", there.Device, "path", path, "options", there.SuperOptions)
	return nil
}
