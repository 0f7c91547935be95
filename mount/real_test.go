package mount

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// programs runs real programs and remembers what it ran.
type programs struct {
	mutex sync.Mutex
	ran   []string
}

func (p *programs) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	p.mutex.Lock()
	p.ran = append(p.ran, strings.Join(append([]string{program}, args...), " "))
	p.mutex.Unlock()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	return out, err
}

func (p *programs) take() []string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	ran := p.ran
	p.ran = nil
	return ran
}

// lacking skips a test that needs something of the host, or fails it where all of that is promised to be there.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REAL_DEVICES") == "1" {
		t.Fatalf("REAL_DEVICES=1, but there is %s", what)
	}
	t.Skipf("there is %s", what)
}

func needPrograms(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			lacking(t, "no "+name)
		}
	}
}

// loopDevice returns a real, blank block device.
func loopDevice(t *testing.T, size int64) (device, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "no root")
	}
	needPrograms(t, "losetup", "mount", "umount")
	file = sparseFile(t, size)
	return attachLoop(t, file), file
}

// sparseFile makes a file of zeros, in memory when the disk's file system cannot hold one so large.
func sparseFile(t *testing.T, size int64) string {
	t.Helper()
	for _, directory := range []string{"/dev/shm", t.TempDir()} {
		file, err := os.CreateTemp(directory, "device-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(file.Name()) })
		err = errors.Join(file.Truncate(size), file.Close())
		if err == nil {
			return file.Name()
		}
	}
	lacking(t, "no place for a sparse file of that size")
	return ""
}

func attachLoop(t *testing.T, file string, options ...string) string {
	t.Helper()
	var out []byte
	for range 20 { // between finding a free one and taking it another process may be faster
		var err error
		out, err = exec.Command("losetup", append(options, "-f", "--show", file)...).CombinedOutput()
		if err == nil {
			device := strings.TrimSpace(string(out))
			t.Cleanup(func() { shell(t, "losetup", "-d", device) })
			return device
		}
	}
	lacking(t, "no loop device: "+string(out))
	return ""
}

func shell(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", program, args, out)
	return string(out)
}

// mountDirectory returns a directory under which nothing stays mounted.
func mountDirectory(t *testing.T) string {
	t.Helper()
	directory, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() {
		mounts, err := New(nil, Options{}).mounts()
		require.NoError(t, err)
		for i := len(mounts) - 1; i >= 0; i-- {
			if strings.HasPrefix(mounts[i].Path, directory+"/") {
				_ = unix.Unmount(mounts[i].Path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
			}
		}
	})
	return directory
}

func realMounter(t *testing.T) (*Mounter, *programs) {
	t.Helper()
	run := &programs{}
	return New(run, Options{BusyTimeout: 50 * time.Millisecond, UnmountTimeout: 20 * time.Second}), run
}

func makeFilesystem(t *testing.T, m *Mounter, device, filesystem string) {
	t.Helper()
	needPrograms(t, "mkfs."+filesystem)
	require.NoError(t, m.Format(t.Context(), FormatRequest{Device: device, Filesystem: filesystem}))
}

func overwrite(t *testing.T, file string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|unix.O_SYNC, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(data, offset)
	require.NoError(t, errors.Join(err, f.Close()))
}

// zeroed overwrites the beginning of a device, as an accident would.
func zeroed(t *testing.T, device string, length int64) {
	t.Helper()
	overwrite(t, device, 0, bytes.Repeat([]byte{0}, int(length)))
}

// smallest is the size of a small device for a file system.
func smallest(filesystem string) int64 {
	if filesystem == "xfs" {
		return 300 << 20
	}
	return 64 << 20
}

var bothFilesystems = []string{"xfs", "ext4"}

func TestRealLife(t *testing.T) {
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			const size = 512 << 20
			device, _ := loopDevice(t, size)
			m, run := realMounter(t)
			directory := mountDirectory(t)
			global, bound := filepath.Join(directory, "glo bal"), filepath.Join(directory, "bound")

			content, err := m.Inspect(t.Context(), device)
			require.NoError(t, err)
			require.True(t, content.Blank, content.Detail)
			require.EqualValues(t, size, content.Bytes)

			needPrograms(t, "mkfs."+filesystem)
			require.NoError(t, m.Format(t.Context(), FormatRequest{Device: device, Filesystem: filesystem, Bytes: size}))
			require.Len(t, run.take(), 1)
			content, err = m.Inspect(t.Context(), device)
			require.NoError(t, err)
			require.Equal(t, filesystem, content.Filesystem)
			require.False(t, content.Blank || content.Damaged, content.Detail)
			require.Empty(t, run.take(), "a healthy file system is recognised by reading")

			for range 2 { // the second time it finds its work done
				require.NoError(t, m.Mount(t.Context(), device, global, filesystem, MountOptions{Options: []string{"noatime"}}))
			}
			require.Len(t, run.take(), 1)
			require.NoError(t, os.WriteFile(filepath.Join(global, "data"), []byte("kept"), 0o600))

			for range 2 {
				require.NoError(t, m.Bind(t.Context(), global, bound, false))
			}
			require.Empty(t, run.take(), "binding starts no program")
			mounts, err := m.Of(device)
			require.NoError(t, err)
			require.Len(t, mounts, 2)
			require.Contains(t, mounts[1].Options, "noatime")

			err = m.Format(t.Context(), FormatRequest{Device: device, Filesystem: filesystem})
			require.ErrorIs(t, err, ErrInUse, "a mounted device is not formatted")

			for range 2 {
				require.NoError(t, m.Unmount(t.Context(), bound))
			}
			require.Empty(t, run.take(), "a bind is removed without a program")
			require.NoError(t, m.RemoveDir(bound))
			require.NoError(t, m.RemoveDir(bound))
			require.ErrorContains(t, m.RemoveDir(global), "still mounted")
			for range 2 {
				require.NoError(t, m.Unmount(t.Context(), global))
			}
			require.Len(t, run.take(), 1)
			require.NoError(t, m.Released(t.Context(), device))

			err = m.Format(t.Context(), FormatRequest{Device: device, Filesystem: filesystem})
			require.ErrorIs(t, err, ErrNotBlank)
			require.Empty(t, run.take())

			require.NoError(t, m.Mount(t.Context(), device, global, filesystem, MountOptions{}))
			data, err := os.ReadFile(filepath.Join(global, "data"))
			require.NoError(t, err)
			require.Equal(t, "kept", string(data))
			require.NoError(t, m.Unmount(t.Context(), global))
		})
	}
}

func TestRealForeignFilesystemIsRefused(t *testing.T) {
	device, _ := loopDevice(t, 512<<20)
	m, run := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	run.take()
	err := m.Format(t.Context(), FormatRequest{Device: device, Filesystem: "xfs"})
	require.ErrorIs(t, err, ErrNotBlank)
	require.ErrorContains(t, err, "ext4 superblock at offset 1024")
	require.Empty(t, run.take())
	err = m.Mount(t.Context(), device, filepath.Join(mountDirectory(t), "v"), "xfs", MountOptions{})
	require.ErrorContains(t, err, "on the device: ext4 superblock")
	require.ErrorContains(t, err, "exit status 32")
}

func TestRealWrongSizeIsRefused(t *testing.T) {
	device, _ := loopDevice(t, 512<<20)
	m, run := realMounter(t)
	err := m.Format(t.Context(), FormatRequest{Device: device, Filesystem: "xfs", Bytes: 1 << 30})
	require.ErrorContains(t, err, "has 536870912 bytes, expected are 1073741824")
	small, _ := loopDevice(t, 100<<20)
	err = m.Format(t.Context(), FormatRequest{Device: small, Filesystem: "xfs"})
	require.ErrorContains(t, err, "smallest xfs has 314572800")
	require.Empty(t, run.take())
}
