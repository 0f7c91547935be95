package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a target's LUN as this machine has it.
type Device struct {
	Path   string   // what to mount: /dev/sdb, or /dev/dm-0 when multipath owns the paths
	Paths  []string // the SCSI disks behind it, of the oldest session first: /dev/sdb, /dev/sdc
	Target Target   // as found in sysfs; Portals are those with a live session
	Bytes  int64
}

// view is what sysfs shows of one LUN.
type view struct {
	sessions []session // with the target, in any state
	disks    []disk    // the LUN's disks with the expected serial, in any state, the oldest session's first
	foreign  []disk    // disks at that LUN with another serial, or none
	unserved []disk    // SCSI devices at that LUN that have no disk
}

func (i *Initiator) look(t Target) (view, error) {
	sessions, err := i.sessions(t.IQN)
	if err != nil {
		return view{}, err
	}
	v := view{sessions: sessions}
	for _, s := range sessions {
		for _, d := range s.disks() {
			if !slices.Contains(t.kernelLUNs(), d.lun) {
				continue
			}
			switch serial, err := d.serial(); {
			case d.isUnserved():
				v.unserved = append(v.unserved, d)
			case d.name == "":
			case err == nil && serial == t.Serial:
				v.disks = append(v.disks, d)
			default:
				v.foreign = append(v.foreign, d)
			}
		}
	}
	return v, nil
}

// usable are the disks that take I/O.
func (i *Initiator) usable(v view) []disk {
	var disks []disk
	for _, d := range v.disks {
		if d.session.live() && d.state() == "running" && exists(i.node(d.name)) {
			disks = append(disks, d)
		}
	}
	return disks
}

// Find looks whether a target's LUN is here and takes I/O. It starts no program and changes nothing.
func (i *Initiator) Find(ctx context.Context, t Target) (Device, bool, error) {
	if err := t.validate(); err != nil {
		return Device{}, false, err
	}
	if err := ctx.Err(); err != nil {
		return Device{}, false, err
	}
	v, err := i.look(t)
	if err != nil {
		return Device{}, false, err
	}
	device, found, err := i.find(t, v)
	if err != nil {
		return Device{}, false, fmt.Errorf("find %s: %w", t, err)
	}
	return device, found, nil
}

func (i *Initiator) find(t Target, v view) (Device, bool, error) {
	if len(i.usable(v)) == 0 {
		return Device{}, false, nil
	}
	mapped, err := i.mapOver(v.disks)
	if err != nil {
		return Device{}, false, err
	}
	device, err := i.device(t, v, mapped)
	return device, err == nil, err
}

// device describes v, whose map, if any, is mapped.
func (i *Initiator) device(t Target, v view, mapped string) (Device, error) {
	device := Device{Target: Target{IQN: t.IQN, LUN: t.LUN, Serial: t.Serial}}
	for _, s := range v.sessions {
		if s.live() && s.persistent != "" && !slices.Contains(device.Target.Portals, s.persistent) {
			device.Target.Portals = append(device.Target.Portals, s.persistent)
		}
	}
	for _, d := range v.disks {
		device.Paths = append(device.Paths, i.node(d.name))
	}
	top := mapped
	if top == "" {
		best, err := i.best(v)
		if err != nil {
			return Device{}, err
		}
		top = best.name
	}
	device.Path = i.node(top)
	var err error
	device.Bytes, err = i.bytes(top)
	return device, err
}

// best is the disk to use where there is no map: the one that is mounted, so that asking again gives the same, else
// the oldest that takes I/O, else the oldest.
func (i *Initiator) best(v view) (disk, error) {
	for _, d := range v.disks {
		if point, err := i.mountPoint(d.name); err != nil {
			return disk{}, err
		} else if point != "" {
			return d, nil
		}
	}
	return append(i.usable(v), v.disks...)[0], nil
}

// settle waits until the device of a LUN whose disks are there can be used: its node, and multipathd's map if it
// makes one.
func (i *Initiator) settle(ctx context.Context, t Target) (Device, error) {
	limit, cancel := context.WithTimeout(ctx, i.opt.MapTimeout+i.opt.DiskTimeout)
	defer cancel()
	device, err := poll(limit, func() (Device, bool, error) {
		v, err := i.look(t)
		if err != nil {
			return Device{}, false, err
		}
		if due, expected, err := i.mapExpected(v); err != nil || expected && time.Now().Before(due) {
			return Device{}, false, err
		} else if expected && i.claimedByMultipath(v.disks[0].name) {
			return Device{}, false, fmt.Errorf("udev keeps %s for multipath, and multipathd makes no map of it; see multipath -v3 %[1]s",
				i.node(v.disks[0].name))
		}
		return i.find(t, v)
	})
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return Device{}, fmt.Errorf("the disk is found, but its node in %s does not come; see udevadm settle", i.opt.DevRoot)
	}
	return device, err
}

// mapExpected tells whether multipathd has still to make a map of the usable disks, and until when it may.
func (i *Initiator) mapExpected(v view) (due time.Time, expected bool, err error) {
	disks := i.usable(v)
	if len(disks) == 0 {
		return time.Time{}, false, nil
	}
	mapped, err := i.mapOver(v.disks)
	if err != nil || mapped != "" {
		return time.Time{}, false, err
	}
	due, expected = i.mapDue(disks)
	return due, expected, nil
}

// Identify tells what a block device is: /dev/sdX, /dev/dm-N, or a link to one. The answer for a disk that belongs to
// a multipath map is the map. It is ErrNotISCSI when there is no iSCSI session behind it.
func (i *Initiator) Identify(devicePath string) (Device, error) {
	real, err := filepath.EvalSymlinks(devicePath)
	if err != nil {
		return Device{}, fmt.Errorf("identify %s: %w", devicePath, err)
	}
	if err := i.checkNode(real); err != nil {
		return Device{}, fmt.Errorf("identify %s: %w", devicePath, err)
	}
	device, err := i.identify(filepath.Base(real))
	if err != nil {
		return Device{}, fmt.Errorf("identify %s: %w", devicePath, err)
	}
	return device, nil
}

// checkNode makes sure that a device's node leads to the device of that name, whose serial number will be looked at:
// whoever opens the node gets what its number says.
func (i *Initiator) checkNode(path string) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return err
	}
	is := fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	if expected := attribute(i.block(filepath.Base(path)), "dev"); expected != "" && is != expected {
		return fmt.Errorf("the node has number %s, and the kernel's %s has %s: it is another device", is, filepath.Base(path), expected)
	}
	return nil
}

func (i *Initiator) identify(name string) (Device, error) {
	if !exists(i.block(name)) {
		return Device{}, fmt.Errorf("no block device %s: %w", name, fs.ErrNotExist)
	}
	paths := []string{name}
	if i.isMap(name) {
		if paths = i.slaves(name); len(paths) == 0 {
			return Device{}, errors.New("multipath map without paths")
		}
	}
	first, err := i.diskNamed(paths[0])
	if err != nil {
		return Device{}, err
	}
	serial, err := first.serial()
	if err != nil {
		return Device{}, fmt.Errorf("serial number of %s: %w", first, err)
	}
	t := Target{IQN: first.session.iqn, LUN: plainLUN(first.lun), Serial: serial}
	v, err := i.look(t)
	if err != nil {
		return Device{}, err
	}
	if len(v.disks) == 0 {
		return Device{}, fmt.Errorf("%s is going away: %w", name, fs.ErrNotExist)
	}
	mapped, err := i.mapOver(v.disks)
	if err != nil {
		return Device{}, err
	}
	device, err := i.device(t, v, mapped)
	if err == nil && mapped == "" { // not the best of the LUN's disks, but the one that was asked for
		device.Path = i.node(name)
		device.Bytes, err = i.bytes(name)
	}
	return device, err
}

// diskNamed is an iSCSI disk by its name.
func (i *Initiator) diskNamed(name string) (disk, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(i.block(name), "device"))
	if err != nil {
		return disk{}, ErrNotISCSI // dm, loop, partition: no SCSI device below
	}
	sessionDir := filepath.Dir(filepath.Dir(dir))
	if !strings.HasPrefix(filepath.Base(sessionDir), "session") {
		return disk{}, ErrNotISCSI
	}
	s, ok := readSession(filepath.Join(i.opt.SysRoot, "class", "iscsi_session", filepath.Base(sessionDir)))
	if !ok {
		return disk{}, ErrNotISCSI
	}
	for _, d := range s.disks() {
		if d.name == name {
			return d, nil
		}
	}
	return disk{}, ErrNotISCSI
}
