package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
	utilio "k8s.io/utils/io"
)

// Mount is one line of mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	Device       string // the source as it was given to mount, usually the path of the device
	Major, Minor int    // number of the device; Major is 0 when no block device stands behind
	Path         string // the mount point
	Root         string // the directory of the file system that is seen there; "/" is all of it
	Filesystem   string // "xfs", "ext4", …
	ReadOnly     bool   // the mount or its whole file system is read-only
	Options      []string
	SuperOptions []string // options of the file system, common to all its mounts

	id, parent int
	peers      string // the peer group of mounts that it is in, "shared:12"; "" is none
}

func (m Mount) String() string {
	mode := "rw"
	if m.ReadOnly {
		mode = "ro"
	}
	return fmt.Sprintf("%s (%d:%d) at %s, %s, %s", m.Device, m.Major, m.Minor, m.Path, m.Filesystem, mode)
}

func (m Mount) isOf(number deviceNumber) bool {
	return m.Major == number.major && m.Minor == number.minor
}

func (m Mount) showsSameAs(other Mount) bool {
	return m.Major == other.Major && m.Minor == other.Minor && m.Root == other.Root
}

// At returns what is mounted at path, the topmost of several. A path that does not exist has nothing mounted.
// Symbolic links in the directories above path are followed, path itself is not touched.
func (m *Mounter) At(path string) (Mount, bool, error) {
	path, err := canonical(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Mount{}, false, nil
	}
	if err != nil {
		return Mount{}, false, err
	}
	mounts, err := m.mounts()
	if err != nil {
		return Mount{}, false, err
	}
	top, mounted := topmost(mounts, path)
	return top, mounted, nil
}

// Of returns all mounts of a block device in this mount namespace, found by the device's number.
func (m *Mounter) Of(device string) ([]Mount, error) {
	number, err := numberOf(device)
	if err != nil {
		return nil, err
	}
	mounts, err := m.mounts()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mounts, func(mount Mount) bool { return !mount.isOf(number) }), nil
}

// Same returns all mounts of the device that is mounted there, found by its number: the device itself may be gone.
//
// Where a directory is visible at two places, as when /var/lib/kubelet is bound from another disk, mounts in it are, too,
// and come and go together (kernel, Documentation/filesystems/sharedsubtree.rst). Of such only one is returned, if
// possible the one at the place where as is.
func (m *Mounter) Same(as Mount) ([]Mount, error) {
	mounts, err := m.mounts()
	if err != nil {
		return nil, err
	}
	byID := make(map[int]Mount, len(mounts))
	for _, mount := range mounts {
		byID[mount.id] = mount
	}
	var same []Mount
	index := map[string]int{}
	for _, mount := range mounts {
		if mount.Major != as.Major || mount.Minor != as.Minor {
			continue
		}
		place := placeOf(mount, byID[mount.parent])
		i, known := index[place]
		switch {
		case !known:
			index[place] = len(same)
			same = append(same, mount)
		case mount.id == as.id || mount.parent == as.parent && same[i].id != as.id:
			same[i] = mount
		}
	}
	return same, nil
}

// placeOf tells where a mount stands such that those which the kernel propagated from one another have one place: in the
// directories of the file system below, as all peers of the mount on which it stands see it.
func placeOf(mount, parent Mount) string {
	if parent.peers == "" {
		return fmt.Sprint(mount.id)
	}
	below, err := filepath.Rel(parent.Path, mount.Path)
	if err != nil {
		return fmt.Sprint(mount.id)
	}
	return parent.peers + ":" + filepath.Join(parent.Root, below)
}

func (m *Mounter) mounts() ([]Mount, error) {
	// Kernels before 5.8 may leave out lines when mounts change during the read, so it is read until it is the same twice.
	const attempts = 20
	text, err := utilio.ConsistentRead(m.opts.MountInfo, attempts)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMounts(text)
}

// parseMounts uses the parser beneath mount-utils: mountutils.ParseMountInfo fails on the whole table when any
// mount of the host has an empty source, and takes a no-break space in a path for the end of the field.
func parseMounts(text []byte) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
	if err != nil {
		return nil, fmt.Errorf("parse mounts: %w", err)
	}
	mounts := make([]Mount, 0, len(infos))
	for _, info := range infos {
		options, super := strings.Split(info.Options, ","), strings.Split(info.VFSOptions, ",")
		mounts = append(mounts, Mount{
			Device: info.Source, Major: info.Major, Minor: info.Minor,
			Path: info.Mountpoint, Root: info.Root, Filesystem: info.FSType,
			ReadOnly: slices.Contains(options, "ro") || slices.Contains(super, "ro"),
			Options:  options, SuperOptions: super,
			id: info.ID, parent: info.Parent, peers: peerGroup(info.Optional),
		})
	}
	return mounts, nil
}

// peerGroup finds "shared:12" among the optional fields.
func peerGroup(optional string) string {
	for field := range strings.FieldsSeq(optional) {
		if strings.HasPrefix(field, "shared:") {
			return field
		}
	}
	return ""
}

// topmost is the mount at path that no other mount at path stands upon.
func topmost(mounts []Mount, path string) (top Mount, mounted bool) {
	for _, mount := range mounts {
		if mount.Path == path && (!mounted || !covered(mounts, mount)) {
			top, mounted = mount, true
		}
	}
	return top, mounted
}

func covered(mounts []Mount, lower Mount) bool {
	return slices.ContainsFunc(mounts, func(upper Mount) bool {
		return upper.Path == lower.Path && upper.parent == lower.id && upper.id != lower.id
	})
}

// canonical returns path as mountinfo would write it, without touching its last element.
func canonical(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("path %q is not absolute", path)
	}
	path = filepath.Clean(path)
	if path == "/" {
		return "", errors.New("the root directory is not a place for mounts")
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("resolve the directory of %s: %w", path, err)
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

type deviceNumber struct{ major, minor int }

func numberOf(device string) (deviceNumber, error) {
	info, err := os.Stat(device)
	if err != nil {
		return deviceNumber{}, fmt.Errorf("look at the device: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return deviceNumber{}, fmt.Errorf("%s is not a block device", device)
	}
	return deviceNumber{int(unix.Major(stat.Rdev)), int(unix.Minor(stat.Rdev))}, nil
}

// dead tells why a mount can no longer be used: its device is gone or its file system was shut down. nil means alive.
func (m *Mounter) dead(mount Mount) error {
	if mount.Major == 0 {
		return nil
	}
	number := deviceNumber{mount.Major, mount.Minor}
	_, err := os.Lstat(m.sysfs(number))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("device %d:%d is gone", mount.Major, mount.Minor)
	}
	if state := m.diskState(number); state != "" && state != diskRunning && state != diskBlocked {
		return fmt.Errorf("device %d:%d is in state %q", mount.Major, mount.Minor, state)
	}
	switch mount.Filesystem {
	case "xfs", "ext2", "ext3", "ext4": // their root never leaves memory: stat does not wait for the device
	default:
		return nil
	}
	var stat unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, mount.Path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stat)
	if mountutils.IsCorruptedMnt(err) {
		return fmt.Errorf("the file system does not answer: %w", err)
	}
	return nil
}

// States of a SCSI disk (kernel, drivers/scsi/scsi_sysfs.c). A blocked one waits for its session to be restored, and
// whoever reads it waits too; the others that are not running answer with errors.
const (
	diskRunning = "running"
	diskBlocked = "blocked"
)

// diskState is "" for a device that is no SCSI disk.
func (m *Mounter) diskState(number deviceNumber) string {
	state, _ := os.ReadFile(filepath.Join(m.sysfs(number), "device", "state"))
	return strings.TrimSpace(string(state))
}

// pathStates are those of the disks below a multipath map; false for any other device.
func (m *Mounter) pathStates(number deviceNumber) (states []string, mapped bool) {
	uuid, _ := os.ReadFile(filepath.Join(m.sysfs(number), "dm", "uuid"))
	paths, _ := filepath.Glob(filepath.Join(m.sysfs(number), "slaves", "*", "device", "state"))
	for _, path := range paths {
		state, _ := os.ReadFile(path)
		states = append(states, strings.TrimSpace(string(state)))
	}
	return states, strings.HasPrefix(string(uuid), "mpath-")
}

func (m *Mounter) sysfs(number deviceNumber) string {
	return filepath.Join(m.opts.SysDevBlock, fmt.Sprintf("%d:%d", number.major, number.minor))
}
