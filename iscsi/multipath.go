package iscsi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// flushLimit is for multipath -f, which waits for the I/O that the map has queued.
const flushLimit = 30 * time.Second

// readersLimit is for those who read a map whose paths are lost: longer than hurriedRecovery, and than what multipathd needs
// to see it.
const readersLimit = 3 * hurriedRecovery

func (i *Initiator) multipathRuns() bool {
	return i.listens("@/org/kernel/linux/storage/multipathd", "/run/multipathd.socket", "/run/multipathd.sock")
}

// mapOf is the multipath map that owns a disk: dm-0, or "".
func (i *Initiator) mapOf(name string) string {
	for _, holder := range i.holders(name) {
		if i.isMap(holder) {
			return holder
		}
	}
	return ""
}

func (i *Initiator) isMap(name string) bool {
	return strings.HasPrefix(attribute(i.block(name), "dm/uuid"), "mpath-")
}

// mapOver is the one map over some disks; "" when there is none. It is an error when there are two, or when the map
// has paths to anything else: what is written to it would go there, too.
func (i *Initiator) mapOver(disks []disk) (string, error) {
	mapped := ""
	ours := map[string]bool{}
	for _, d := range disks {
		ours[d.name] = true
		switch owner := i.mapOf(d.name); {
		case owner == "" || owner == mapped:
		case mapped == "":
			mapped = owner
		default:
			return "", fmt.Errorf("paths of one LUN are in two multipath maps, %s and %s; see multipath -ll", i.node(mapped), i.node(owner))
		}
	}
	if mapped == "" {
		return "", nil
	}
	for _, path := range i.slaves(mapped) {
		if !ours[path] {
			return "", fmt.Errorf("multipath map %s also holds %s, which is %w; see multipath -ll", i.node(mapped), i.node(path), ErrWrongSerial)
		}
	}
	return mapped, nil
}

func (i *Initiator) slaves(name string) []string {
	entries, _ := os.ReadDir(filepath.Join(i.block(name), "slaves"))
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// mapDue tells until when multipathd may still make a map over disks that have none. The disks' nodes are as old as
// the disks, so whoever comes late does not wait again.
func (i *Initiator) mapDue(disks []disk) (time.Time, bool) {
	if !i.multipathRuns() {
		return time.Time{}, false
	}
	var newest time.Time
	for _, d := range disks {
		if info, err := os.Stat(i.node(d.name)); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		if point, err := i.mountPoint(d.name); err != nil || point != "" {
			return time.Time{}, false // in use as it is: no map can take it any more
		}
	}
	return newest.Add(i.opt.MapTimeout), true
}

// claimedByMultipath tells whether udev has marked a disk as one that only multipath may use.
func (i *Initiator) claimedByMultipath(name string) bool {
	content, err := os.ReadFile(filepath.Join(i.opt.RunRoot, "udev", "data", "b"+attribute(i.block(name), "dev")))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		if strings.TrimSpace(line) == "E:DM_MULTIPATH_DEVICE_PATH=1" {
			return true
		}
	}
	return false
}

// flushMap takes a multipath map away. It fails when the map is in use or cannot write what it has queued; then the
// paths must stay, or that is lost.
//
// The caller has made sure that nobody stands on the map. Who still reads it, as udev does whenever a path fails, goes
// when his read fails, and multipathd may make the map once more of a path that udev was late with.
func (i *Initiator) flushMap(ctx context.Context, name string) error {
	limit, cancel := context.WithTimeout(ctx, readersLimit)
	defer cancel()
	var last error
	_, err := poll(limit, func() (bool, bool, error) {
		last = i.flushMapOnce(ctx, name)
		switch {
		case !exists(i.block(name)): // whoever took it away
			return true, true, nil
		case last == nil || isRead(last):
			return true, false, nil
		}
		return true, false, last
	})
	if err != nil && last != nil {
		return last
	}
	if err != nil {
		return fmt.Errorf("wait until multipath map %s is gone: %w", i.node(name), err)
	}
	return nil
}

// isRead tells whether multipath has left a map alone because it is open. It sees that itself, or the kernel does.
func isRead(err error) bool {
	failure, ok := errors.AsType[*ProgramError](err)
	return ok && (strings.Contains(failure.Output, "map in use") || strings.Contains(failure.Output, "Device or resource busy"))
}

// flushMapOnce waits for the map to go, but not for one that was made anew.
func (i *Initiator) flushMapOnce(ctx context.Context, name string) error {
	alias, err := i.mapAlias(name)
	if err != nil {
		return err
	}
	if err := i.program(ctx, flushLimit, "flush multipath map "+alias, "multipath", "-f", alias); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = poll(limit, func() (bool, bool, error) { return true, !exists(i.block(name)), nil })
	return nil
}

// mapAlias is the name that multipath's programs know a map by.
func (i *Initiator) mapAlias(name string) (string, error) {
	alias := attribute(i.block(name), "dm/name")
	if alias == "" || strings.HasPrefix(alias, "-") {
		return "", fmt.Errorf("multipath map %s has no usable name: %q", i.node(name), alias)
	}
	return alias, nil
}
