package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Grow enlarges the file system on a device, mounted at path, to the device's size. One that fills the device
// already is left alone, and no program is started.
func (m *Mounter) Grow(ctx context.Context, device, path, filesystem string) error {
	if err := m.grow(ctx, device, path, filesystem); err != nil {
		return fmt.Errorf("grow %s on %s: %w", filesystem, device, err)
	}
	return nil
}

func (m *Mounter) grow(ctx context.Context, device, path, filesystem string) error {
	there, err := m.growable(device, path, filesystem)
	if err != nil {
		return err
	}
	full, err := inContext(ctx, func() (bool, error) { return fills(device, there) })
	if err != nil || full {
		return err
	}
	program, argument := "xfs_growfs", there.Path
	if filesystem == "ext4" {
		program, argument = "resize2fs", device
	}
	out, err := m.run.Run(ctx, program, argument)
	if err != nil {
		return programError(program, out, err)
	}
	m.log.Info("grew a file system", "device", device, "path", there.Path)
	return nil
}

func (m *Mounter) growable(device, path, filesystem string) (Mount, error) {
	number, err := numberOf(device)
	if err != nil {
		return Mount{}, err
	}
	there, mounted, err := m.At(path)
	switch {
	case err != nil:
		return Mount{}, err
	case !mounted:
		return Mount{}, fmt.Errorf("it must be mounted for that, but nothing is mounted at %s; mount it first", path)
	case !there.isOf(number):
		return Mount{}, fmt.Errorf("it must be mounted for that, but at %s is something else: %s; %s", path, there, unmountFirst(there))
	case there.Filesystem != filesystem || filesystem != "xfs" && filesystem != "ext4":
		return Mount{}, fmt.Errorf("mounted is %s; xfs and ext4 are grown here, any other with its own tools", there)
	case there.ReadOnly:
		return Mount{}, fmt.Errorf("it is mounted read-only: %s; mount it with write access", there)
	}
	return there, m.dead(there)
}

func fills(device string, there Mount) (bool, error) {
	deviceSize, err := sizeOf(device)
	if err != nil {
		return false, err
	}
	blocks, blockSize, err := mountedSize(device, there)
	if err != nil {
		return false, err
	}
	return blocks >= deviceSize/blockSize, nil
}

// mountedSize asks the kernel for the size of a mounted xfs: on the device itself the superblock is old for a while
// after growing. For ext4 the page cache of the device has the kernel's own superblock.
func mountedSize(device string, there Mount) (blocks, blockSize int64, err error) {
	if there.Filesystem == "xfs" && there.Path != "" {
		return xfsGeometry(there.Path)
	}
	page := make([]byte, pageSize)
	file, err := os.Open(device)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	if _, err := file.ReadAt(page, 0); err != nil {
		return 0, 0, err
	}
	if there.Filesystem == "xfs" {
		super, found := parseXFS(page)
		return sound(int64(super.blocks), super.blockSize, super.defect, found)
	}
	super, found := parseExt(page[extSuperOffset:])
	return sound(int64(super.blocks), super.blockSize, super.defect, found && super.version == there.Filesystem)
}

func sound(blocks, blockSize int64, defect string, found bool) (int64, int64, error) {
	switch {
	case !found:
		return 0, 0, errors.New("its superblock is not there")
	case defect != "":
		return 0, 0, fmt.Errorf("its superblock cannot be used: %s", defect)
	}
	return blocks, blockSize, nil
}

// xfsGeometry is the ioctl XFS_IOC_FSGEOMETRY_V1, which every kernel has (xfs_fs.h, struct xfs_fsop_geom_v1).
func xfsGeometry(path string) (blocks, blockSize int64, err error) {
	var geometry struct {
		blockSize  uint32
		_          [7]uint32
		dataBlocks uint64
		_          [9]uint64
	}
	const request = 2<<30 | unsafe.Sizeof(geometry)<<16 | 'X'<<8 | 100
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&geometry))); errno != 0 {
		return 0, 0, os.NewSyscallError("ioctl XFS_IOC_FSGEOMETRY_V1", errno)
	}
	return int64(geometry.dataBlocks), int64(geometry.blockSize), nil
}

func sizeOf(device string) (int64, error) {
	opened, err := openDevice(device, false)
	if err != nil {
		return 0, err
	}
	defer opened.close()
	return opened.size, nil
}
