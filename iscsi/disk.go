package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// disk is a SCSI device of a session. One that is no disk (a controller, an enclosure) has no name.
type disk struct {
	name    string // sdb
	hctl    string // 2:0:0:1: host, channel, target, LUN
	dir     string // …/sessionN/target2:0:0/2:0:0:1
	lun     int    // as the kernel numbers it
	session session
}

// disks are a session's SCSI devices.
func (s session) disks() []disk {
	dirs, _ := filepath.Glob(filepath.Join(s.dir, "target*", "*:*:*:*"))
	var found []disk
	for _, dir := range dirs {
		hctl := filepath.Base(dir)
		lun, err := lunOf(hctl)
		if err != nil {
			continue
		}
		d := disk{hctl: hctl, dir: dir, lun: lun, session: s}
		if blocks, _ := os.ReadDir(filepath.Join(dir, "block")); len(blocks) > 0 {
			d.name = blocks[0].Name()
		}
		found = append(found, d)
	}
	return found
}

func lunOf(hctl string) (int, error) {
	parts := strings.Split(hctl, ":")
	if len(parts) != 4 {
		return 0, fmt.Errorf("%q is not host:channel:target:lun", hctl)
	}
	return strconv.Atoi(parts[3])
}

// isPlaceholder tells whether the device is only what a target shows to be asked for its LUNs (SPC-4, 6.4.2:
// peripheral device types 0Ch controller, 1Eh well-known LUN, 1Fh none). Nobody uses those.
func (d disk) isPlaceholder() bool {
	kind := attribute(d.dir, "type")
	return d.name == "" && (kind == "12" || kind == "30" || kind == "31")
}

// isUnserved tells whether the device is a LUN that the target knows and does not serve (SPC-4, 6.4.2: peripheral qualifier
// 1): the kernel gives it no disk, nobody can use it, and it stays so until it is removed and scanned for again.
func (d disk) isUnserved() bool { return d.name == "" && attribute(d.dir, "type") == "0" }

// serial is the unit serial number that the kernel read when it found the device, or on its last rescan.
func (d disk) serial() (string, error) {
	page, err := os.ReadFile(filepath.Join(d.dir, "vpd_pg80"))
	if err != nil {
		return "", err
	}
	return parseSerial(page)
}

// parseSerial reads VPD page 80h (SPC-4, 7.8.15): 4 bytes of header with the length in the last two, then ASCII,
// padded with blanks on the left, by some targets with blanks or zeros on the right.
func parseSerial(page []byte) (string, error) {
	if len(page) < 4 || page[1] != 0x80 {
		return "", errors.New("not a unit serial number page (VPD 80h)")
	}
	text := page[4:]
	if length := int(binary.BigEndian.Uint16(page[2:4])); length < len(text) {
		text = text[:length]
	}
	serial := string(bytes.Trim(text, " \x00"))
	if serial == "" || !printable(serial) {
		return "", errors.New("unit serial number (VPD 80h) is empty or not printable")
	}
	return serial, nil
}

// state is running when I/O may be sent, blocked while the session is lost, offline when the kernel gave it up.
func (d disk) state() string { return attribute(d.dir, "state") }

func (i *Initiator) node(name string) string { return filepath.Join(i.opt.DevRoot, name) }

// block is the directory of a block device in sysfs.
func (i *Initiator) block(name string) string {
	return filepath.Join(i.opt.SysRoot, "class", "block", name)
}

// bytes is a block device's size; sysfs counts in 512 bytes, whatever the device's own sectors are.
func (i *Initiator) bytes(name string) (int64, error) {
	text := attribute(i.block(name), "size")
	sectors, err := strconv.ParseInt(text, 10, 64)
	if err != nil || sectors < 0 {
		return 0, fmt.Errorf("size of %s: sysfs says %q", i.node(name), text)
	}
	return sectors * 512, nil
}

func (i *Initiator) holders(name string) []string {
	entries, _ := os.ReadDir(filepath.Join(i.block(name), "holders"))
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func (i *Initiator) partitions(name string) []string {
	numbers, _ := filepath.Glob(filepath.Join(i.block(name), name+"*", "partition"))
	var names []string
	for _, number := range numbers {
		names = append(names, filepath.Base(filepath.Dir(number)))
	}
	return names
}

// checkUnused returns ErrInUse when a block device is mounted, or another layer but those allowed stands on it.
func (i *Initiator) checkUnused(ctx context.Context, name string, allowed ...string) error {
	for _, part := range append(i.partitions(name), name) {
		point, err := i.mountPoint(part)
		if err != nil {
			return err
		}
		if point != "" {
			return fmt.Errorf("%s is %w: mounted on %s; unmount it first", i.node(part), ErrInUse, point)
		}
		for _, holder := range i.holders(part) {
			if !slices.Contains(allowed, holder) {
				return fmt.Errorf("%s is %w: by %s (see lsblk); release it first", i.node(part), ErrInUse, i.node(holder))
			}
		}
	}
	if len(allowed) > 0 {
		return nil // that layer has it for itself
	}
	err := bounded(ctx, func() error { return i.claim(i.node(name)) })
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s is %w: mounted in another mount namespace, or held by another program", i.node(name), ErrInUse)
	}
	return ctx.Err() // any other error says that it cannot be opened: nobody can use it
}

// mountPoint is one place where a block device is mounted; "" when it is not.
func (i *Initiator) mountPoint(name string) (string, error) {
	number := attribute(i.block(name), "dev")
	if number == "" {
		return "", nil
	}
	table, err := os.ReadFile(filepath.Join(i.opt.ProcRoot, "self", "mountinfo"))
	if err != nil {
		return "", fmt.Errorf("look whether %s is mounted: %w", i.node(name), err)
	}
	return mountPointOf(string(table), number), nil
}

// mountPointOf reads mountinfo (proc(5)): field 3 is the device's major:minor, field 5 the mount point.
func mountPointOf(table, number string) string {
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == number {
			return strings.ReplaceAll(fields[4], `\040`, " ")
		}
	}
	return ""
}

// remove takes a disk away from the kernel. The caller has made sure that nobody uses it.
func (i *Initiator) remove(ctx context.Context, d disk) error {
	err := bounded(ctx, func() error { return i.delete(d) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("remove SCSI device %s: %w", d, err)
	}
	_, err = poll(ctx, func() (bool, bool, error) {
		_, err := os.Stat(d.dir)
		return true, errors.Is(err, fs.ErrNotExist), nil
	})
	if err != nil {
		return fmt.Errorf("wait until SCSI device %s is gone: %w", d, err)
	}
	i.log.DebugContext(ctx, "SCSI device removed", "device", d.name, "hctl", d.hctl)
	return nil
}

func (d disk) String() string {
	if d.name == "" {
		return d.hctl
	}
	return d.name + " (" + d.hctl + ")"
}
