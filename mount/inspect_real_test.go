package mount

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A destroyed beginning must not make a device with data look blank.
func TestRealDestroyedBeginning(t *testing.T) {
	const grown = 12 << 30
	for _, c := range []struct {
		name, filesystem, mkfs string
		bytes, resize          int64
		options                []string
	}{
		{name: "xfs small", filesystem: "xfs", bytes: 300 << 20},
		{name: "xfs 20 GiB", filesystem: "xfs", bytes: 20 << 30},
		{name: "xfs 1 KiB blocks", filesystem: "xfs", bytes: 1 << 30, options: []string{"-b", "size=1024"}},
		{name: "xfs with a stripe", filesystem: "xfs", bytes: 10 << 30, options: []string{"-d", "su=64k,sw=16"}},
		{name: "xfs grown from 5 GiB", filesystem: "xfs", bytes: 5 << 30, resize: grown},
		{name: "xfs odd size", filesystem: "xfs", bytes: 7654321 << 10},
		{name: "xfs 5 TiB", filesystem: "xfs", bytes: 5 << 40, options: []string{"-l", "size=64m"}},
		{name: "ext4 small", filesystem: "ext4", bytes: 64 << 20, options: []string{"-b", "1024"}},
		{name: "ext4 2 KiB blocks", filesystem: "ext4", bytes: 1 << 30, options: []string{"-b", "2048"}},
		{name: "ext4 20 GiB", filesystem: "ext4", bytes: 20 << 30},
		{name: "ext4 grown from 5 GiB", filesystem: "ext4", bytes: 5 << 30, resize: grown},
		{name: "ext4 sparse_super2", filesystem: "ext4", bytes: 3 << 30, options: []string{"-O", "sparse_super2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			needPrograms(t, "mkfs."+c.filesystem)
			if os.Geteuid() != 0 {
				lacking(t, "no root")
			}
			file := sparseFile(t, c.bytes)
			device := attachLoop(t, file)
			m, _ := realMounter(t)
			require.NoError(t, m.Format(t.Context(), FormatRequest{Device: device, Filesystem: c.filesystem, Options: c.options}))
			if c.resize > 0 {
				require.NoError(t, os.Truncate(file, c.resize))
				shell(t, "losetup", "-c", device)
			}
			zeroed(t, device, 10<<20)

			content, err := m.Inspect(t.Context(), device)
			require.NoError(t, err)
			require.False(t, content.Blank)
			require.Equal(t, c.filesystem, content.Filesystem, content.Detail)
			require.True(t, content.Damaged)
			require.Contains(t, content.Detail, "primary superblock at the beginning of the device is destroyed")
			err = m.Format(t.Context(), FormatRequest{Device: device, Filesystem: c.filesystem})
			require.ErrorIs(t, err, ErrNotBlank)
			err = m.Mount(t.Context(), device, filepath.Join(mountDirectory(t), "v"), c.filesystem, MountOptions{})
			require.ErrorContains(t, err, "destroyed")
		})
	}
}

// Whatever a killed mkfs leaves behind, Inspect says blank only if there is not one byte on the device.
func TestRealKilledMkfs(t *testing.T) {
	const size, kills = 3 << 30, 12
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			needPrograms(t, "mkfs."+filesystem)
			m, _ := realMounter(t)
			blank, half := 0, 0
			var whole time.Duration
			for i := range kills + 1 { // the first is not killed and shows how long it takes
				device, file := loopDevice(t, size)
				_, args, err := mkfsCommand(FormatRequest{Filesystem: filesystem, Device: device})
				require.NoError(t, err)
				mkfs := exec.Command("mkfs."+filesystem, args...)
				start := time.Now()
				require.NoError(t, mkfs.Start())
				if i > 0 {
					timer := time.AfterFunc(whole*time.Duration(i)/(kills+1), func() { _ = mkfs.Process.Kill() })
					defer timer.Stop()
				}
				killed := mkfs.Wait() != nil
				if i == 0 {
					whole = time.Since(start)
				}
				content, err := m.Inspect(t.Context(), device)
				require.NoError(t, err)
				switch {
				case content.Blank:
					blank++
					require.True(t, killed)
					eachData(t, device, file, func(offset int64, _ []byte) {
						t.Errorf("called blank, but mkfs wrote at %d", offset)
					})
				case killed:
					half++
					require.NotEmpty(t, content.Detail)
				default:
					require.Equal(t, filesystem, content.Filesystem)
					require.False(t, content.Damaged)
				}
			}
			t.Logf("of %d: %d blank, %d half made", kills, blank, half)
		})
	}
}

// eachData calls visit with all pages of a device's file that are not zero, after everything has been written to it.
func eachData(t *testing.T, device, file string, visit func(offset int64, page []byte)) {
	t.Helper()
	shell(t, "blockdev", "--flushbufs", device)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	buf := make([]byte, 1<<20)
	for offset := int64(0); ; {
		data, err := f.Seek(offset, unix.SEEK_DATA) // skips the holes
		if errors.Is(err, unix.ENXIO) {
			return
		}
		require.NoError(t, err)
		offset = data / pageSize * pageSize
		n, err := f.ReadAt(buf, offset)
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
		}
		for page := range slices.Chunk(buf[:n], pageSize) {
			if !bytes.Equal(page, zeros[:len(page)]) {
				visit(offset, page)
			}
			offset += int64(len(page))
		}
	}
}

// checksum is over all that a device holds.
func checksum(t *testing.T, device, file string) [sha256.Size]byte {
	t.Helper()
	hash := sha256.New()
	eachData(t, device, file, func(offset int64, page []byte) {
		fmt.Fprintln(hash, offset)
		hash.Write(page)
	})
	return [sha256.Size]byte(hash.Sum(nil))
}

func TestRealFormatOutlivesItsContext(t *testing.T) {
	device, _ := loopDevice(t, 1<<30)
	needPrograms(t, "mkfs.xfs")
	ctx, cancel := context.WithCancel(t.Context())
	run := &slowStart{programs: &programs{}, started: cancel, ended: make(chan struct{})}
	m := New(run, Options{})
	err := m.Format(ctx, FormatRequest{Device: device, Filesystem: "xfs"})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "mkfs.xfs is still running")
	<-run.ended
	content, err := m.Inspect(t.Context(), device)
	require.NoError(t, err)
	require.Equal(t, "xfs", content.Filesystem)
	require.False(t, content.Damaged, content.Detail)
}

// slowStart tells when a program is about to run and when it has ended.
type slowStart struct {
	*programs
	started func()
	ended   chan struct{}
}

func (s *slowStart) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	s.started()
	defer close(s.ended)
	return s.programs.Run(ctx, program, args...)
}

// The kernel reports an error for direct reads behind the end of a loop device's file.
func TestRealReadErrorIsNotBlank(t *testing.T) {
	device, file := loopDevice(t, 1<<30)
	if out, err := exec.Command("losetup", "--direct-io=on", device).CombinedOutput(); err != nil {
		t.Skipf("the file system under the loop device has no direct reading: %s", oneLine(out))
	}
	m, run := realMounter(t)
	for _, c := range []struct {
		name string
		left int64
	}{{"end", 1<<30 - 4096}, {"middle", 400 << 20}, {"all but the first page", 4096}, {"all", 0}} {
		require.NoError(t, os.Truncate(file, c.left))
		content, err := m.Inspect(t.Context(), device)
		require.Error(t, err, c.name)
		require.False(t, content.Blank, c.name)
		require.ErrorContains(t, err, "could not be read at offset", c.name)
		err = m.Format(t.Context(), FormatRequest{Device: device, Filesystem: "xfs"})
		require.ErrorContains(t, err, "not formatted", c.name)
	}
	require.Empty(t, run.take())
}

// A device-mapper target makes single places unreadable: each place that Inspect relies on must stop the formatting.
func TestRealSinglePlacesUnreadable(t *testing.T) {
	needPrograms(t, "dmsetup")
	if out, err := exec.Command("dmsetup", "version").CombinedOutput(); err != nil {
		t.Skipf("the kernel has no device mapper: %s", oneLine(out))
	}
	const size = 1 << 30
	device, _ := loopDevice(t, size)
	m, _ := realMounter(t)
	t.Setenv("DM_DISABLE_UDEV", "1")
	all := places(size, 0)
	for i, place := range all {
		if i%9 != 0 && i != len(all)-1 {
			continue // creating a device takes long in an emulator
		}
		name := "mount-test-" + str(int64(i))
		bad := place.offset / 512
		table := []string{}
		if bad > 0 {
			table = append(table, "0 "+str(bad)+" linear "+device+" 0")
		}
		table = append(table, str(bad)+" 8 error")
		if rest := int64(size)/512 - bad - 8; rest > 0 {
			table = append(table, str(bad+8)+" "+str(rest)+" linear "+device+" "+str(bad+8))
		}
		create := exec.Command("dmsetup", "create", name)
		create.Stdin = strings.NewReader(strings.Join(table, "\n"))
		out, err := create.CombinedOutput()
		require.NoError(t, err, "%s", out)
		content, err := m.Inspect(t.Context(), "/dev/mapper/"+name)
		shell(t, "dmsetup", "remove", "--retry", name)
		require.ErrorIs(t, err, unix.EIO, "place %d at %d", i, place.offset)
		require.False(t, content.Blank)
	}
}

func str(n int64) string { return strconv.FormatInt(n, 10) }

// Inspect of huge devices stays quick; the figures are shown with -v.
func TestRealInspectTime(t *testing.T) {
	m, _ := realMounter(t)
	for _, size := range []int64{1 << 30, 100 << 30, 100 << 40} {
		device, _ := loopDevice(t, size)
		for range 2 {
			start := time.Now()
			content, err := m.Inspect(t.Context(), device)
			took := time.Since(start)
			require.NoError(t, err)
			require.True(t, content.Blank, content.Detail)
			require.Less(t, took, 5*time.Second)
			t.Logf("%7d GiB: %d reads, %s", size>>30, len(places(size, 0)), took)
		}
	}
}

func TestRealInspectEndsWithItsContext(t *testing.T) {
	device, _ := loopDevice(t, 1<<30)
	m, _ := realMounter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	content, err := m.Inspect(ctx, device)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, content.Blank)
}
