package mount

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapped is a device-mapper device over another one, of which one sector range fails as a bad disk would.
type mapped struct {
	t          *testing.T
	name, over string
	size       int64 // bytes
}

func newMapped(t *testing.T, over string, size int64) mapped {
	t.Helper()
	needPrograms(t, "dmsetup")
	if out, err := exec.Command("dmsetup", "version").CombinedOutput(); err != nil {
		lacking(t, "no device mapper: "+oneLine(out))
	}
	t.Setenv("DM_DISABLE_UDEV", "1")
	m := mapped{t, "mount-test-" + filepath.Base(over), over, size}
	m.dmsetup(m.table(0, 0), "create", m.name)
	t.Cleanup(func() { m.dmsetup("", "remove", "--retry", m.name) })
	return m
}

func (m mapped) path() string { return "/dev/mapper/" + m.name }

func (m mapped) dmsetup(table string, args ...string) {
	m.t.Helper()
	command := exec.Command("dmsetup", args...)
	command.Stdin = strings.NewReader(table)
	out, err := command.CombinedOutput()
	require.NoError(m.t, err, "dmsetup %v: %s", args, out)
}

// fail makes so many bytes from an offset unreadable; none of them makes the device sound again.
func (m mapped) fail(offset, length int64) {
	m.t.Helper()
	m.dmsetup(m.table(offset, length), "reload", m.name)
	m.dmsetup("", "resume", m.name)
}

func (m mapped) table(offset, length int64) string {
	var lines []string
	add := func(from, to int64, kind, rest string) {
		if to > from {
			lines = append(lines, fmt.Sprintf("%d %d %s%s", from/512, (to-from)/512, kind, rest))
		}
	}
	linear := func(from, to int64) { add(from, to, "linear", fmt.Sprintf(" %s %d", m.over, from/512)) }
	linear(0, offset)
	add(offset, offset+length, "error", "")
	linear(offset+length, m.size)
	return strings.Join(lines, "\n")
}

// A disk that cannot be read somewhere is never formatted: neither one with data, which it must not lose, nor a blank one,
// whose blankness is not proven. With the error gone the data is there, and the blank one is formatted.
func TestRealUnreadablePlaces(t *testing.T) {
	const size = 1 << 30
	for _, filesystem := range []string{"xfs", "ext4", ""} {
		name := filesystem
		if name == "" {
			name = "blank"
		}
		t.Run(name, func(t *testing.T) {
			device, file := loopDevice(t, size)
			m, run := realMounter(t)
			disk := newMapped(t, device, size)
			if filesystem != "" {
				makeFilesystem(t, m, disk.path(), filesystem)
			}
			before := checksum(t, device, file)
			run.take()
			wanted := filesystem
			if wanted == "" {
				wanted = "xfs"
			}
			for _, place := range []struct {
				name       string
				offset, at int64 // of what cannot be read, and of the read that meets it
			}{
				{"head", 0, 0},
				{"where xfs keeps its second superblock", size / 4, size / 4},
				{"where ext4 keeps its second superblock", 128 << 20, 128 << 20},
				{"tail", size - 4096, size - edgeSize},
			} {
				disk.fail(place.offset, 4096)
				if filesystem != "" && place.offset == 0 {
					// Its superblock cannot be seen: this is what blkid takes for blank.
					_, err := m.Inspect(t.Context(), disk.path())
					require.ErrorContains(t, err, "could not be read at offset 0")
				}
				err := m.Format(t.Context(), FormatRequest{Device: disk.path(), Filesystem: wanted, Bytes: size})
				require.Error(t, err, place.name)
				if filesystem == "" || place.offset == 0 {
					require.ErrorContains(t, err, fmt.Sprintf("could not be read at offset %d", place.at), place.name)
					require.ErrorContains(t, err, "its content is unknown, so it is not formatted", place.name)
					require.ErrorContains(t, err, "input/output error", place.name)
				}
			}
			require.Empty(t, run.take(), "a program was started on a disk that cannot be read")
			require.Equal(t, before, checksum(t, device, file), "the disk was changed")

			disk.fail(0, 0)
			if filesystem == "" {
				require.NoError(t, m.Format(t.Context(), FormatRequest{Device: disk.path(), Filesystem: wanted, Bytes: size}))
			}
			path := filepath.Join(mountDirectory(t), "v")
			require.NoError(t, m.Mount(t.Context(), disk.path(), path, wanted, MountOptions{}))
			require.NoError(t, m.Unmount(t.Context(), path))
		})
	}
}

// Each foreign owner of a disk is refused by name, on a real device, by mkfs and by mount, and not one byte changes.
// Captured are what the tools themselves wrote (testdata/signatures); the others are the marks of their formats.
func TestRealForeignOwners(t *testing.T) {
	const size = 512 << 20
	marked := func(offset int64, mark []byte) func(*testing.T) string {
		return func(t *testing.T) string {
			file := sparseFile(t, size)
			overwrite(t, file, offset, mark)
			return file
		}
	}
	tool := func(name string) func(*testing.T) string {
		return func(t *testing.T) string { file, _ := captured(t, name); return file }
	}
	for name, c := range map[string]struct {
		file func(*testing.T) string
		is   string // as blkid calls it
		at   string
	}{
		"LVM":               {tool("LVM2_member"), "LVM2_member", "at offset 512"},
		"LUKS1":             {tool("crypto_LUKS1"), "crypto_LUKS", "at offset 0"},
		"LUKS2":             {tool("crypto_LUKS2"), "crypto_LUKS", "at offset 0"},
		"partitions (MBR)":  {tool("dos"), "dos", "at offset 510"},
		"partitions (GPT)":  {tool("gpt"), "gpt", "at offset 512"},
		"btrfs":             {tool("btrfs"), "btrfs", "at offset 65600"},
		"swap":              {tool("swap"), "swap", "at offset 4086"},
		"ext3":              {tool("ext3"), "ext3", "at offset 1024"},
		"ext4's journal":    {tool("jbd"), "jbd", "at offset 1024"},
		"ZFS, first label":  {marked(128<<10, binary.LittleEndian.AppendUint64(nil, 0x00bab10c)), "zfs_member", "at offset 131072"},         // ZFS on-disk specification, 1.3: uberblock
		"ZFS, last label":   {marked(size-128<<10, binary.LittleEndian.AppendUint64(nil, 0x00bab10c)), "zfs_member", "at offset 536739840"}, // the same, label L3
		"md RAID, at end":   {marked(size-64<<10, []byte{0xfc, 0x4e, 0x2b, 0xa9}), "linux_raid_member", "at offset 536805376"},              // mdadm, super0.c
		"GPT, only its end": {marked(size-512, []byte("EFI PART")), "gpt", "at offset 536870400"},                                           // UEFI specification, 5.3.2
		"data of nobody":    {marked(300<<10, []byte("database")), "", "non-zero bytes (0x64) at offset 307200"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.is == "" {
				c.is = "no file system that is known here"
			}
			file := c.file(t)
			device := attachLoop(t, file)
			m, run := realMounter(t)
			before := checksum(t, device, file)
			content, err := m.Inspect(t.Context(), device)
			require.NoError(t, err)
			for _, filesystem := range bothFilesystems {
				err := m.Format(t.Context(), FormatRequest{Device: device, Filesystem: filesystem})
				require.ErrorIs(t, err, ErrNotBlank)
				for _, says := range []string{device, c.is, c.at, "Nothing was changed", "blkid -p " + device} {
					require.ErrorContains(t, err, says)
				}
			}
			require.Empty(t, run.take())
			err = m.Mount(t.Context(), device, filepath.Join(mountDirectory(t), "v"), "xfs", MountOptions{})
			require.ErrorContains(t, err, "on the device: "+content.Detail)
			for _, program := range run.take() {
				require.True(t, strings.HasPrefix(program, "mount "), "a failed mount led to %s", program)
			}
			require.Equal(t, before, checksum(t, device, file), "the disk was changed")
		})
	}
}

// A disk that is larger than the array says is the wrong one as well.
func TestRealLargerThanExpectedIsRefused(t *testing.T) {
	device, file := loopDevice(t, 1<<30)
	m, run := realMounter(t)
	err := m.Format(t.Context(), FormatRequest{Device: device, Filesystem: "xfs", Bytes: 512 << 20})
	require.ErrorContains(t, err, "has 1073741824 bytes, expected are 536870912")
	require.ErrorContains(t, err, "nothing was written")
	require.Empty(t, run.take())
	eachData(t, device, file, func(offset int64, _ []byte) { t.Errorf("something was written at %d", offset) })
}

// The mount of a damaged file system fails and says how to look at it. Nothing repairs it, and nothing makes a new one.
func TestRealDamagedFilesystem(t *testing.T) {
	for _, c := range []struct {
		filesystem string
		headers    int64 // where a part of it is that no mount works without
		options    []string
		check      string
	}{
		{"xfs", 512, nil, "xfs_repair -n "},                  // of the first allocation group
		{"ext4", 4096, []string{"-b", "4096"}, "e2fsck -n "}, // of the block groups
	} {
		t.Run(c.filesystem, func(t *testing.T) {
			needPrograms(t, "mkfs."+c.filesystem)
			device, _ := loopDevice(t, smallest(c.filesystem))
			m, run := realMounter(t)
			require.NoError(t, m.Format(t.Context(), FormatRequest{Device: device, Filesystem: c.filesystem, Options: c.options}))
			overwrite(t, device, c.headers, make([]byte, 3*512))
			run.take()
			path := filepath.Join(mountDirectory(t), "v")
			for range 2 {
				err := m.Mount(t.Context(), device, path, c.filesystem, MountOptions{})
				t.Log(err)
				require.ErrorContains(t, err, c.check+device)
				require.ErrorIs(t, m.Format(t.Context(), FormatRequest{Device: device, Filesystem: c.filesystem}), ErrNotBlank)
			}
			for _, program := range run.take() {
				require.True(t, strings.HasPrefix(program, "mount "), "a failed mount led to %s", program)
			}
		})
	}
}
