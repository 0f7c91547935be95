package mount

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRealReadOnlyWritesNothing(t *testing.T) {
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			device, file := loopDevice(t, smallest(filesystem))
			m, _ := realMounter(t)
			makeFilesystem(t, m, device, filesystem)
			path := filepath.Join(mountDirectory(t), "v")
			require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}))
			require.NoError(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600))
			require.NoError(t, m.Unmount(t.Context(), path))

			before := checksum(t, device, file)
			for range 2 {
				require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{ReadOnly: true}))
			}
			require.ErrorIs(t, os.WriteFile(filepath.Join(path, "g"), nil, 0o600), unix.EROFS)
			_, err := os.ReadFile(filepath.Join(path, "f"))
			require.NoError(t, err)
			require.ErrorContains(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}), "mounted there already, but otherwise")
			require.ErrorContains(t, m.Grow(t.Context(), device, path, filesystem), "mounted read-only")
			require.NoError(t, m.Unmount(t.Context(), path))
			require.Equal(t, before, checksum(t, device, file), "a read-only mount wrote to the device")

			require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}), "the device is writable again")
			require.NoError(t, os.WriteFile(filepath.Join(path, "g"), nil, 0o600))
		})
	}
}

// unclean leaves a file system on the device as a crash would: its journal has changes that are nowhere else.
func unclean(t *testing.T, m *Mounter, device, filesystem, path string) {
	t.Helper()
	needPrograms(t, "xfs_io")
	require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}))
	require.NoError(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600))
	shell(t, "xfs_io", "-x", "-c", "shutdown -f", path)
	require.NoError(t, m.Unmount(t.Context(), path))
}

func TestRealReadOnlyRefusesAnUncleanJournal(t *testing.T) {
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			device, file := loopDevice(t, smallest(filesystem))
			m, _ := realMounter(t)
			makeFilesystem(t, m, device, filesystem)
			path := filepath.Join(mountDirectory(t), "v")
			unclean(t, m, device, filesystem, path)

			before := checksum(t, device, file)
			err := m.Mount(t.Context(), device, path, filesystem, MountOptions{ReadOnly: true})
			t.Log(err)
			require.ErrorContains(t, err, "not cleanly unmounted")
			require.ErrorContains(t, err, "mount it once with write access")
			option := map[string]string{"xfs": "norecovery", "ext4": "noload"}[filesystem]
			require.ErrorContains(t, err, option)
			require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{ReadOnly: true, Options: []string{option}}))
			require.NoError(t, m.Unmount(t.Context(), path))
			require.Equal(t, before, checksum(t, device, file))
			require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}))
		})
	}
}

func TestRealWriteProtectedDevice(t *testing.T) {
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			device, file := loopDevice(t, 300<<20)
			m, _ := realMounter(t)
			makeFilesystem(t, m, device, filesystem)
			protected := attachLoop(t, file, "--read-only")
			path := filepath.Join(mountDirectory(t), "v")
			require.NoError(t, m.Mount(t.Context(), protected, path, filesystem, MountOptions{ReadOnly: true}))
			require.NoError(t, m.Unmount(t.Context(), path))
			err := m.Mount(t.Context(), protected, path, filesystem, MountOptions{})
			t.Log(err)
			require.ErrorContains(t, err, "write-protected")
			_, mounted, err := m.At(path)
			require.NoError(t, err)
			require.False(t, mounted)
		})
	}
}

func TestRealCloneBesideItsSource(t *testing.T) {
	device, file := loopDevice(t, 300<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "xfs")
	clone, copied := loopDevice(t, 300<<20)
	eachData(t, device, file, func(offset int64, page []byte) { overwrite(t, copied, offset, page) })
	directory := mountDirectory(t)
	require.NoError(t, m.Mount(t.Context(), device, filepath.Join(directory, "source"), "xfs", MountOptions{}))
	require.NoError(t, m.Mount(t.Context(), clone, filepath.Join(directory, "clone"), "xfs", MountOptions{}))
	require.ErrorContains(t, m.Mount(t.Context(), clone, filepath.Join(directory, "source"), "xfs", MountOptions{}), "something else is mounted there")
}

func TestRealGrow(t *testing.T) {
	for _, filesystem := range bothFilesystems {
		t.Run(filesystem, func(t *testing.T) {
			if filesystem == "ext4" {
				needResourceCapability(t)
			}
			const small, large = 400 << 20, 1 << 30
			needPrograms(t, "xfs_growfs", "resize2fs")
			device, file := loopDevice(t, small)
			m, run := realMounter(t)
			makeFilesystem(t, m, device, filesystem)
			path := filepath.Join(mountDirectory(t), "v")
			require.ErrorContains(t, m.Grow(t.Context(), device, path, filesystem), "nothing is mounted")
			require.NoError(t, m.Mount(t.Context(), device, path, filesystem, MountOptions{}))
			run.take()

			require.NoError(t, m.Grow(t.Context(), device, path, filesystem))
			require.Empty(t, run.take(), "a full-size file system needs no program")
			require.NoError(t, os.Truncate(file, large))
			shell(t, "losetup", "-c", device)
			require.NoError(t, m.Grow(t.Context(), device, path, filesystem))
			require.Len(t, run.take(), 1)
			require.EqualValues(t, large, sizeOfFilesystem(t, device, Mount{Path: path, Filesystem: filesystem}))
			require.NoError(t, m.Grow(t.Context(), device, path, filesystem))
			require.Empty(t, run.take(), "grown already")

			require.NoError(t, m.Unmount(t.Context(), path))
			require.EqualValues(t, large, sizeOfFilesystem(t, device, Mount{Filesystem: filesystem}), "the same from the device")
		})
	}
}

// sizeOfFilesystem is in bytes; without a path it is that of one that is not mounted.
func sizeOfFilesystem(t *testing.T, device string, there Mount) int64 {
	t.Helper()
	blocks, blockSize, err := mountedSize(device, there)
	require.NoError(t, err)
	return blocks * blockSize
}

// needResourceCapability skips where root may not grow an ext4 (CAP_SYS_RESOURCE), as in some containers.
func needResourceCapability(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		t.Skip("root lacks CAP_SYS_RESOURCE here")
	}
}

func TestRealBind(t *testing.T) {
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	directory := mountDirectory(t)
	global, bound := filepath.Join(directory, "global"), filepath.Join(directory, "bound")
	require.ErrorContains(t, m.Bind(t.Context(), global, bound, false), "nothing is mounted at")
	require.NoError(t, m.Mount(t.Context(), device, global, "ext4", MountOptions{Options: []string{"nosuid", "nodev"}}))

	require.NoError(t, os.Mkdir(bound, 0o750))
	stray := filepath.Join(bound, "stray")
	require.NoError(t, os.WriteFile(stray, nil, 0o600))
	require.ErrorContains(t, m.Bind(t.Context(), global, bound, false), "not empty (stray)")
	require.ErrorContains(t, m.RemoveDir(bound), "has content (stray)")
	require.ErrorContains(t, m.Bind(t.Context(), global, stray, false), "not a directory")
	require.ErrorContains(t, m.Mount(t.Context(), device, bound, "ext4", MountOptions{}), "not empty (stray)")
	require.FileExists(t, stray)
	require.NoError(t, os.Remove(stray))
	link := filepath.Join(directory, "link")
	require.NoError(t, os.Symlink(bound, link))
	require.ErrorContains(t, m.Bind(t.Context(), global, link, false), "not a directory")
	deep := filepath.Join(directory, "no", "parent")
	require.NoError(t, m.Bind(t.Context(), global, deep, false))
	require.NoError(t, m.Unmount(t.Context(), deep))

	for range 2 {
		require.NoError(t, m.Bind(t.Context(), global, bound, true))
	}
	there, mounted, err := m.At(bound)
	require.NoError(t, err)
	require.True(t, mounted)
	require.True(t, there.ReadOnly)
	require.Subset(t, there.Options, []string{"ro", "nosuid", "nodev"})
	require.ErrorIs(t, os.WriteFile(filepath.Join(bound, "f"), nil, 0o600), unix.EROFS)
	require.NoError(t, os.WriteFile(filepath.Join(global, "f"), nil, 0o600), "the source stays writable")
	require.ErrorContains(t, m.Bind(t.Context(), global, bound, false), "read-only")

	require.NoError(t, m.Unmount(t.Context(), bound))
	require.NoError(t, m.Bind(t.Context(), global, bound, false))
	require.NoError(t, m.Bind(t.Context(), global, bound, true), "finishes a bind that was interrupted between its two steps")
	require.ErrorIs(t, os.WriteFile(filepath.Join(bound, "f"), nil, 0o600), unix.EROFS)

	elsewhere := filepath.Join(directory, "elsewhere")
	require.NoError(t, os.Mkdir(elsewhere, 0o750))
	require.NoError(t, unix.Mount("tmpfs", elsewhere, "tmpfs", 0, ""))
	require.ErrorContains(t, m.Bind(t.Context(), global, elsewhere, false), "something else is mounted there")
}

func TestRealPathThroughLink(t *testing.T) {
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	directory := mountDirectory(t)
	require.NoError(t, os.Mkdir(filepath.Join(directory, "data"), 0o750))
	require.NoError(t, os.Symlink("data", filepath.Join(directory, "link")))
	path := filepath.Join(directory, "link", "v")
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	there, mounted, err := m.At(path)
	require.NoError(t, err)
	require.True(t, mounted)
	require.Equal(t, filepath.Join(directory, "data", "v"), there.Path)
	require.NoError(t, m.Unmount(t.Context(), path))
	require.NoError(t, m.RemoveDir(path))
}

func TestRealBusy(t *testing.T) {
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	path := filepath.Join(mountDirectory(t), "v")
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	file, err := os.Create(filepath.Join(path, "open"))
	require.NoError(t, err)
	defer file.Close()

	err = m.Unmount(t.Context(), path)
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, path+"/open")
	t.Log(err)
	m.opts.UnmountTimeout = 50 * time.Millisecond
	require.ErrorContains(t, m.Released(t.Context(), device), "mounted at "+path)
	m.opts.UnmountTimeout = 10 * time.Second

	m.opts.BusyTimeout = 5 * time.Second
	time.AfterFunc(50*time.Millisecond, func() { file.Close() })
	require.NoError(t, m.Unmount(t.Context(), path), "what is busy only for a moment is waited for")

	m.opts.BusyTimeout = 10 * time.Millisecond
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	below := filepath.Join(path, "below")
	require.NoError(t, os.Mkdir(below, 0o750))
	require.NoError(t, m.Bind(t.Context(), path, below, false))
	err = m.Unmount(t.Context(), path)
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "mount below it at "+below)
	require.NoError(t, m.Unmount(t.Context(), below))
}

func TestRealStackedMounts(t *testing.T) {
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	path := filepath.Join(mountDirectory(t), "v")
	require.NoError(t, os.Mkdir(path, 0o750))
	require.NoError(t, unix.Mount("lower", path, "tmpfs", 0, ""))
	require.ErrorContains(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}), "something else is mounted there: lower")
	require.NoError(t, unix.Mount(device, path, "ext4", 0, ""))
	require.NoError(t, unix.Mount("upper", path, "tmpfs", 0, ""))
	there, _, err := m.At(path)
	require.NoError(t, err)
	require.Equal(t, "upper", there.Device)
	require.NoError(t, m.Unmount(t.Context(), path))
	require.NoError(t, m.RemoveDir(path))
}

// A file system that the kernel has shut down answers EIO. It is unmounted like any other, and mounted anew.
func TestRealDeadFilesystem(t *testing.T) {
	needPrograms(t, "xfs_io")
	device, _ := loopDevice(t, 300<<20)
	m, run := realMounter(t)
	makeFilesystem(t, m, device, "xfs")
	directory := mountDirectory(t)
	path, bound := filepath.Join(directory, "v"), filepath.Join(directory, "bound")
	require.NoError(t, m.Mount(t.Context(), device, path, "xfs", MountOptions{}))
	require.NoError(t, m.Bind(t.Context(), path, bound, false))
	shell(t, "xfs_io", "-x", "-c", "shutdown", path)

	require.ErrorContains(t, m.Bind(t.Context(), path, filepath.Join(directory, "other"), false), "does not answer")
	err := m.Mount(t.Context(), device, path, "xfs", MountOptions{})
	require.ErrorContains(t, err, "stays so until these other mounts")
	require.ErrorContains(t, err, bound)
	require.NoError(t, m.Unmount(t.Context(), bound))

	run.take()
	require.NoError(t, m.Mount(t.Context(), device, path, "xfs", MountOptions{}))
	require.NoError(t, m.Bind(t.Context(), path, bound, false))
	held, err := os.Open(path)
	require.NoError(t, err)
	shell(t, "xfs_io", "-x", "-c", "shutdown", path)
	require.NoError(t, m.Unmount(t.Context(), bound))

	require.ErrorIs(t, m.Mount(t.Context(), device, path, "xfs", MountOptions{}), ErrBusy, "a new mount would be dead from the start")
	require.NoError(t, m.Unmount(t.Context(), path), "who uses a dead file system may never end")
	m.opts.UnmountTimeout = 50 * time.Millisecond
	require.ErrorIs(t, m.Released(t.Context(), device), ErrInUse, "out of sight, but still in use")
	require.NoError(t, held.Close())
	m.opts.UnmountTimeout = 10 * time.Second
	require.NoError(t, m.Released(t.Context(), device))
}

// An ext4 that the kernel has given up looks alive to stat; from 6.15 on its options tell.
func TestRealShutDownExt4(t *testing.T) {
	needPrograms(t, "xfs_io")
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	directory := mountDirectory(t)
	path, bound := filepath.Join(directory, "v"), filepath.Join(directory, "bound")
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	require.NoError(t, m.Bind(t.Context(), path, bound, false))
	shell(t, "xfs_io", "-x", "-c", "shutdown", path)
	there, _, err := m.At(path)
	require.NoError(t, err)
	if !slices.Contains(there.SuperOptions, "shutdown") {
		t.Skip("this kernel does not show that an ext4 is shut down")
	}
	require.ErrorIs(t, m.Bind(t.Context(), path, filepath.Join(directory, "other"), false), ErrShutDown)
	err = m.Mount(t.Context(), device, path, "ext4", MountOptions{})
	require.ErrorIs(t, err, ErrShutDown)
	require.ErrorContains(t, err, bound)
	require.NoError(t, m.Unmount(t.Context(), bound))
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	require.NoError(t, m.Bind(t.Context(), path, bound, false))
	require.NoError(t, os.WriteFile(filepath.Join(bound, "file"), nil, 0o600))
}

// Another mount namespace keeps a file system alive that is nowhere to be seen here.
func TestRealReleasedSeesOtherNamespaces(t *testing.T) {
	needPrograms(t, "unshare", "sleep")
	device, _ := loopDevice(t, 64<<20)
	m, _ := realMounter(t)
	makeFilesystem(t, m, device, "ext4")
	path := filepath.Join(mountDirectory(t), "v")
	require.NoError(t, m.Mount(t.Context(), device, path, "ext4", MountOptions{}))
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 60")
	ready, err := other.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, other.Start())
	_, err = ready.Read(make([]byte, 6))
	require.NoError(t, err)
	require.NoError(t, m.Unmount(t.Context(), path))
	m.opts.UnmountTimeout = 50 * time.Millisecond
	err = m.Released(t.Context(), device)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, "mounted at "+path)
	t.Log(err)
	require.NoError(t, other.Process.Kill())
	_ = other.Wait()
	m.opts.UnmountTimeout = 10 * time.Second
	require.NoError(t, m.Released(t.Context(), device))
}
