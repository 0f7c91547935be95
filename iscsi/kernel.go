package iscsi

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// kernel is what changes something by a system call. All of it may wait for the target: see bounded.
//
// A SCSI device is reached by its directory below its session, whose number is never given again. By host:channel:target:LUN
// a write that comes late would hit another volume's disk: host numbers are given again.
type kernel struct {
	scan   func(path, address string) error // write to a SCSI host's scan file
	rescan func(disk) error                 // read size and identity anew
	delete func(disk) error                 // take the SCSI device away
	flush  func(device string) error        // write what the page cache holds
	claim  func(device string) error        // EBUSY when somebody in any namespace has the device for himself
}

func realKernel() kernel {
	return kernel{
		scan:   writeFile,
		rescan: func(d disk) error { return writeFile(filepath.Join(d.dir, "rescan"), "1") },
		delete: func(d disk) error { return writeFile(filepath.Join(d.dir, "delete"), "1") },
		flush: func(device string) error {
			return withDevice(device, unix.O_RDONLY, func(fd int) error { return unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0) })
		},
		claim: func(device string) error {
			return withDevice(device, unix.O_RDONLY|unix.O_EXCL, func(int) error { return nil })
		},
	}
}

func withDevice(device string, flags int, use func(fd int) error) error {
	fd, err := unix.Open(device, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: device, Err: err}
	}
	defer unix.Close(fd)
	return use(fd)
}

// writeFile writes to an attribute of sysfs; it never makes a file.
func writeFile(path, content string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	return errors.Join(err, file.Close())
}
