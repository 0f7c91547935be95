package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the unit of reading. It is a multiple of every logical block size that a disk has.
const pageSize = 4096

// blockDevice is a device (or, in tests, a regular file) opened for reading past the page cache.
type blockDevice struct {
	file      *os.File
	size      int64 // bytes
	blockSize int64 // smallest unit of a direct read; 1 for a regular file
	minimumIO int64 // stripe unit by the device's own word, bytes; 0 is unknown; mkfs.xfs lays its groups out by it
}

// ErrInUse says that a device is mounted, or is claimed by another device or by a program.
var ErrInUse = errors.New("it is in use: mounted (perhaps in another mount namespace), part of a multipath or other device, claimed by a running program, or still being written out")

// openDevice opens a device for reading. Exclusive fails when anything has the device mounted or claimed.
func openDevice(path string, exclusive bool) (*blockDevice, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	if exclusive {
		flags |= unix.O_EXCL // without O_CREAT this has a meaning only for block devices
	}
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	device, err := measure(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return device, nil
}

func measure(file *os.File) (*blockDevice, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	device := &blockDevice{file: file, blockSize: 1}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		if err := device.askTopology(); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("not a block device")
	}
	device.size, err = file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("ask its size: %w", err)
	}
	if device.size <= 0 {
		return nil, errors.New("the device has a size of 0 bytes: it is not ready or gone")
	}
	return device, nil
}

func (d *blockDevice) askTopology() error {
	fd := int(d.file.Fd())
	block, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("ask its block size: %w", err)
	}
	if block <= 0 || pageSize%block != 0 {
		return fmt.Errorf("its block size of %d bytes is not supported", block)
	}
	d.blockSize = int64(block)
	unit, _ := unix.IoctlGetUint32(fd, unix.BLKIOMIN) // a hint: without it fewer places are read
	d.minimumIO = int64(unit)
	// Direct: what the page cache remembers proves nothing about the device.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_DIRECT); err != nil {
		return fmt.Errorf("switch to direct reading: %w", err)
	}
	return nil
}

func (d *blockDevice) close() { d.file.Close() }

// read fills buf, made by alignedBuffer, from offset, a multiple of pageSize. At the device's end it returns what there is.
func (d *blockDevice) read(buf []byte, offset int64) ([]byte, error) {
	buf = buf[:min(int64(len(buf)), d.size-offset)]
	n, err := d.file.ReadAt(buf, offset)
	if n == len(buf) {
		return buf, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("the device ends early")
	}
	return nil, &readError{offset: offset + int64(n), err: err}
}

type readError struct {
	offset int64
	err    error
}

func (e *readError) Error() string {
	return fmt.Sprintf("the device could not be read at offset %d: %v", e.offset, e.err)
}

func (e *readError) Unwrap() error { return e.err }

// alignedBuffer returns memory for direct reads.
func alignedBuffer(length int64) []byte {
	buf := make([]byte, length+pageSize)
	shift := -uintptr(unsafe.Pointer(&buf[0])) & (pageSize - 1)
	return buf[shift : shift+uintptr(length) : shift+uintptr(length)]
}

// Released waits until nothing uses the device any more: no mount in any mount namespace, no file system
// that is still being written out after its mount has vanished, no program that claimed it. It waits no longer
// than the UnmountTimeout and then names the users that can be found. A device that is gone is released.
//
// Before a device is taken from the machine this is the proof that nothing will be lost: an unmount that ran into
// its limit is no longer to be seen in mountinfo while the kernel is still writing.
func (m *Mounter) Released(ctx context.Context, device string) error {
	err := poll(ctx, m.opts.UnmountTimeout, ErrInUse, func() error {
		_, err := inContext(ctx, func() (struct{}, error) { return struct{}{}, claim(device) })
		return err
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrInUse) {
		return fmt.Errorf("release of %s: %w", device, err)
	}
	if users := m.usersOfDevice(ctx, device); users != "" {
		err = fmt.Errorf("%w: %s", err, users)
	}
	return fmt.Errorf("release of %s: not within %s: %w", device, m.opts.UnmountTimeout, err)
}

func claim(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.EBUSY):
		return ErrInUse
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil
	}
	return os.NewSyscallError("open", err)
}
