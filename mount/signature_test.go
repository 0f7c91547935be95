package mount

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// captured rebuilds a device from testdata: "size BYTES", then lines of "offset hexadecimal"; all else is zero.
func captured(t testing.TB, name string) (file string, head []byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "signatures", name+".txt"))
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), name)
	f, err := os.Create(file)
	require.NoError(t, err)
	defer f.Close()
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "#":
		case "size":
			size, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(size))
		default:
			offset, err := strconv.ParseInt(key, 10, 64)
			require.NoError(t, err)
			data, err := hex.DecodeString(value)
			require.NoError(t, err)
			_, err = f.WriteAt(data, offset)
			require.NoError(t, err)
		}
	}
	head = make([]byte, pageSize)
	_, err = f.ReadAt(head, 0)
	require.NoError(t, err)
	return file, head
}

// device makes a file of zeros with one mark.
func device(t *testing.T, size, offset int64, mark string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "device")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, size))
	overwrite(t, file, offset, []byte(mark))
	return file
}

func refuseFormat(t *testing.T, file string) {
	t.Helper()
	run := &programs{}
	err := New(run, Options{}).Format(t.Context(), FormatRequest{Device: file, Filesystem: "ext4"})
	require.ErrorIs(t, err, ErrNotBlank)
	require.ErrorContains(t, err, "Nothing was changed; look at it with `blkid -p "+file+"`")
	require.Empty(t, run.take())
}

func TestCapturedSignatures(t *testing.T) {
	files, err := filepath.Glob("testdata/signatures/*.txt")
	require.NoError(t, err)
	require.Len(t, files, 12)
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(name, func(t *testing.T) {
			file, _ := captured(t, name)
			content, err := New(nil, Options{}).Inspect(t.Context(), file)
			require.NoError(t, err)
			require.False(t, content.Blank)
			require.Equal(t, strings.TrimRight(name, "12"), strings.TrimRight(content.Filesystem, "12"), content.Detail)
			require.False(t, content.Damaged, content.Detail)
			refuseFormat(t, file)
		})
	}
}

func TestMadeUpSignatures(t *testing.T) {
	const size = 100*mib + 512 // not a multiple of anything but a sector
	const md, partitions = "\xfc\x4e\x2b\xa9", "\x80\x20\x21\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\xf8\x01\x00"
	uberblock := binary.LittleEndian.AppendUint64(nil, 0x00bab10c)
	foreignUberblock := binary.BigEndian.AppendUint64(nil, 0x00bab10c)
	for _, c := range []struct {
		name   string
		offset int64
		mark   string
		want   string
	}{
		{"md 1.1", 0, md, "linux_raid_member"},
		{"md 1.2", 4096, md, "linux_raid_member"},
		{"md 1.0", (size/512 - 16) &^ 7 * 512, md, "linux_raid_member"},
		{"md 0.90", size&^65535 - 65536, md, "linux_raid_member"},
		{"zfs label 0", 128 * kib, string(uberblock), "zfs_member"},
		{"zfs label 1, an uberblock of 8 KiB", 256*kib + 128*kib + 8*kib, string(foreignUberblock), "zfs_member"},
		{"zfs label 2", 100*mib - 512*kib + 128*kib, string(uberblock), "zfs_member"},
		{"zfs label 3", 100*mib - 256*kib + 255*kib, string(foreignUberblock), "zfs_member"},
		{"backup of a GPT", size - 512, "EFI PART", "gpt"},
		{"backup of a GPT, large sectors", size - 4096, "EFI PART", "gpt"},
		{"second header of LUKS2", 16 * kib, "SKUL\xba\xbe", "crypto_LUKS"},
		{"copy of btrfs", 64*mib + 64, "_BHRfS_M", "btrfs"},
		{"ntfs", 3, "NTFS    ", "ntfs"},
		{"partitions", 446, partitions + strings.Repeat("\x00", 48) + "\x55\xaa", "dos"},
		{"boot sector without partitions", 510, "\x55\xaa", ""},
		{"bytes at the beginning", 0, "\x01", ""},
		{"bytes within the first MiB", 700 * kib, "database", ""},
		{"the last byte", size - 1, "x", ""},
		{"bytes where ext4 has its second group", 24 * mib, "x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := device(t, size, c.offset, c.mark)
			content, err := New(nil, Options{}).Inspect(t.Context(), file)
			require.NoError(t, err)
			require.False(t, content.Blank)
			require.Equal(t, c.want, content.Filesystem, content.Detail)
			if c.want == "" {
				at := c.offset
				require.Contains(t, content.Detail, fmt.Sprintf("non-zero bytes (0x%02x) at offset %d, of no file system", c.mark[0], at))
			}
			refuseFormat(t, file)
		})
	}
}

func TestTwoFilesystemsAreNone(t *testing.T) {
	_, xfs := captured(t, "xfs")
	file, _ := captured(t, "ext4")
	overwrite(t, file, 0, xfs[:512])
	content, err := New(nil, Options{}).Inspect(t.Context(), file)
	require.NoError(t, err)
	require.False(t, content.Blank)
	require.Empty(t, content.Filesystem)
	require.Contains(t, content.Detail, "two file systems: xfs superblock at offset 0")
	require.Contains(t, content.Detail, "ext4 superblock at offset 1024")
}

func TestFilesystemLargerThanItsDevice(t *testing.T) {
	file, _ := captured(t, "ext4")
	require.NoError(t, os.Truncate(file, 32<<20))
	content, err := New(nil, Options{}).Inspect(t.Context(), file)
	require.NoError(t, err)
	require.True(t, content.Damaged)
	require.Contains(t, content.Detail, "(a file system of 67108864 bytes), unusable: the device has only 33554432 bytes")
}

func TestInspectRefuses(t *testing.T) {
	m := New(nil, Options{})
	for name, path := range map[string]string{
		"a directory": t.TempDir(), "a character device": "/dev/null", "nothing": filepath.Join(t.TempDir(), "none"), "an empty file": "/proc/self/stat",
	} {
		content, err := m.Inspect(t.Context(), path)
		require.Error(t, err, name)
		require.False(t, content.Blank, name)
	}
}

func TestInspectSmallDevices(t *testing.T) {
	for _, size := range []int64{512, 4096, 5000, 1 << 20, 8 << 20, 8<<20 + 512} {
		content, err := New(nil, Options{}).Inspect(t.Context(), device(t, size, 0, ""))
		require.NoError(t, err)
		require.True(t, content.Blank, "%d: %s", size, content.Detail)
		content, err = New(nil, Options{}).Inspect(t.Context(), device(t, size, size-1, "x"))
		require.NoError(t, err)
		require.False(t, content.Blank, size)
	}
}

func FuzzRecognise(f *testing.F) {
	for _, name := range []string{"gpt", "dos", "xfs", "ext4", "swap", "crypto_LUKS1"} {
		_, head := captured(f, name)
		f.Add(head, head, int64(1<<30))
	}
	f.Add([]byte{}, []byte("EFI PART"), int64(8))
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64) {
		if size < int64(len(tail)) || size < int64(len(head)) {
			return
		}
		if found, is := recognise(head, tail, size); is && (found.filesystem == "" || found.offset < 0 || found.offset >= size) {
			t.Fatalf("impossible finding %+v", found)
		}
		spare(head, 0)
	})
}
