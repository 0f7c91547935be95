package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// loopDevices makes block devices of files. The kernel's target needs one to be able to grow: its own file back end
// takes the size of a regular file once.
type loopDevices interface {
	Attach(file string) (device string, err error)
	Detach(device string) error
	// Fit makes the device as big as its file has become.
	Fit(device string) error
	// Size is in bytes.
	Size(device string) int64
	// Of lists the devices over files of a folder.
	Of(dir string) []string
}

// loops are the kernel's. The ioctls are those of loop(4).
type loops struct{}

// attachTries is for races: between asking for a free device and taking it, another program may take it.
const attachTries = 16

func (loops) Attach(file string) (string, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("attach a loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("attach a loop device: %w; the kernel module is loop", err)
	}
	defer control.Close()
	for range attachTries {
		var number int
		if number, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			break
		}
		device := fmt.Sprintf("/dev/loop%d", number)
		if err = configure(device, file, backing); err == nil {
			return device, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return "", fmt.Errorf("attach a loop device to %s: %w", file, err)
}

func configure(device, file string, backing *os.File) error {
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
	return unix.IoctlLoopConfigure(int(loop.Fd()), &config)
}

func (loops) Detach(device string) error { return loopCommand(device, unix.LOOP_CLR_FD) }
func (loops) Fit(device string) error    { return loopCommand(device, unix.LOOP_SET_CAPACITY) }

func loopCommand(device string, command uint) error {
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), command, 0); err != nil && !errors.Is(err, unix.ENXIO) { // ENXIO: nothing attached
		return fmt.Errorf("loop device %s: %w", device, err)
	}
	return nil
}

func (loops) Size(device string) int64 {
	text, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "size"))
	sectors, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return sectors * 512
}

func (loops) Of(dir string) []string {
	var devices []string
	found, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is right
	for _, f := range found {
		if file, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(file), dir+"/") {
			devices = append(devices, "/dev/"+strings.Split(f, "/")[3])
		}
	}
	return devices
}
