package driver

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// entry is one volume of the journal, with what the node shows of it.
type entry struct {
	key     string
	record  record
	err     error // why the record cannot be read
	leaving bool  // its removal has begun
	asked   time.Time
	target  iscsi.Target // zero when the record has no good device string

	sessions []iscsi.Session // with its target, whatever else they serve
	disks    []iscsi.Disk
	mounts   []mount.Mount // of its disks, or of disks that are gone where kubelet mounts it
}

// entries are all volumes of the journal.
func (o *Operator) entries(s scene) []entry {
	var entries []entry
	for _, key := range o.journal().used() {
		entries = append(entries, o.entry(s, key, false))
	}
	for _, key := range o.journal().unfinished() {
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.key == key }) {
			entries = append(entries, o.entry(s, key, true))
		}
	}
	return entries
}

func (o *Operator) entry(s scene, key string, leaving bool) entry {
	e := entry{key: key, leaving: leaving}
	path := o.journal().inUse(key)
	if leaving {
		path = o.journal().leaving(key)
	}
	if info, err := os.Stat(path); err == nil {
		e.asked = info.ModTime()
	}
	if e.record, e.err = readRecord(path); e.err != nil {
		return e
	}
	if e.target, e.err = targetOf(e.record); e.err != nil {
		return e
	}
	e.sessions, e.disks = s.sessionsOf(e.target.IQN), s.disks(lunOf(e.target))
	e.mounts = s.mountsOf(e.disks)
	if len(e.disks) == 0 {
		e.mounts = s.mountsNamed(e)
	}
	return e
}

// mountsNamed are those at the places where kubelet mounts a volume, of devices that no session serves.
func (s scene) mountsNamed(e entry) []mount.Mount {
	served := map[string]bool{}
	for _, session := range s.sessions {
		for _, mounted := range s.mountsOf(session.Disks) {
			served[mounted.Path] = true
		}
	}
	var mounts []mount.Mount
	for _, mounted := range s.mounts {
		name, global, ours := volumeAt(mounted.Path)
		if ours && !served[mounted.Path] && (global && fileNameFor(name) == e.key || !global && name == e.record.Name) {
			mounts = append(mounts, mounted)
		}
	}
	return mounts
}

// volumeAt tells which volume a path of kubelet's is for, and whether it is the node's global one.
func volumeAt(path string) (name string, global, ours bool) {
	if name, err := parseGlobalPath(path); err == nil {
		return name, true, true
	}
	pod, err := parsePodPath(path)
	return pod.name, false, err == nil
}

// deviceOf is the block device that the volume's disks make: the map over them, else the one that is mounted, else one
// that takes I/O.
func deviceOf(disks []iscsi.Disk, mounts []mount.Mount) (path string, bytes int64) {
	for _, disk := range disks {
		for _, layer := range disk.Layers {
			if layer.Multipath {
				return layer.Path, disk.Bytes
			}
		}
	}
	for _, choose := range []func(iscsi.Disk) bool{
		func(disk iscsi.Disk) bool {
			return slices.ContainsFunc(mounts, func(m mount.Mount) bool { return numberOf(m) == disk.Number })
		},
		func(disk iscsi.Disk) bool { return disk.State == diskRunning },
		func(iscsi.Disk) bool { return true },
	} {
		if i := slices.IndexFunc(disks, choose); i >= 0 {
			return disks[i].Path, disks[i].Bytes
		}
	}
	return "", 0
}

// diskRunning is the kernel's word for a SCSI disk that takes I/O.
const diskRunning = "running"

// retryTime is longer than kubelet waits between two tries to mount a volume (2 min 2 s), plus the time of a call.
const retryTime = 4 * time.Minute

// DefaultAge is how long nobody must have asked for a volume before it counts as left behind.
const DefaultAge = 5 * time.Minute

// isOver tells whether nothing wants a volume of the journal any more, and why. It is not proof that nobody uses its disk.
func isOver(e entry, older time.Duration) (why string, over bool) {
	since := time.Since(e.asked).Round(time.Second)
	switch {
	case e.leaving:
		return "its removal began and did not end", true
	case since < older || len(usedAt(e)) > 0:
		return "", false
	case e.record.Direct != nil && len(e.mounts) > 0:
		return fmt.Sprintf("no pod has got it, and nobody has asked for it for %s", since), true
	case len(e.sessions) == 0:
		return fmt.Sprintf("it has neither session nor mount, and nobody has asked for it for %s", since), true
	}
	return fmt.Sprintf("it is not mounted, and nobody has asked for it for %s", since), true
}

// usedAt lists where a volume is mounted, but for what the driver itself unmounts with it.
func usedAt(e entry) []string {
	own := ""
	if e.record.Direct != nil {
		own = realPath(e.record.Direct.Mount)
	}
	var paths []string
	for _, mounted := range e.mounts {
		if mounted.Path != own {
			paths = append(paths, mounted.Path)
		}
	}
	return paths
}

// realPath is a path as mountinfo has it. Its last element is not touched: the device behind it may be dead.
func realPath(path string) string {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(parent, filepath.Base(path))
}

// unused proves that nobody has a volume's disks, whatever the mounts of this namespace say. An error is who has them,
// or why that is not known.
func (o *Operator) unused(ctx context.Context, e entry) error {
	if paths := usedAt(e); len(paths) > 0 {
		return fmt.Errorf("it is mounted on %s", strings.Join(paths, ", "))
	}
	if e.record.Direct != nil && len(e.mounts) > 0 {
		return nil // its own mount has the disks, and refuses to go while anybody works on it
	}
	var devices []string
	for _, disk := range e.disks {
		devices = append(devices, disk.Path)
		for _, layer := range disk.Layers {
			if !layer.Multipath {
				return fmt.Errorf("%s stands on %s", layer.Path, disk.Path)
			}
			if !slices.Contains(devices, layer.Path) {
				devices = append(devices, layer.Path)
			}
		}
	}
	if len(devices) == 0 {
		return nil
	}
	users, err := o.Mounts.Users(ctx, devices...)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("it is in use by %s", strings.Join(users, ", "))
	}
	return nil
}

// samePortal compares two spellings of a portal.
func samePortal(a, b string) bool {
	if a == b {
		return true
	}
	one, errOne := netip.ParseAddrPort(a)
	two, errTwo := netip.ParseAddrPort(b)
	return errOne == nil && errTwo == nil && one == two
}
