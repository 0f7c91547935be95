package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMountRunsOneProgram(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("deep/v")
	h.runner.run = func(context.Context, string) (string, error) {
		h.mountinfo(h.line(path, "xfs", "rw"))
		return "", nil
	}
	for range 2 {
		require.NoError(t, h.Mount(t.Context(), h.device, path, "xfs", MountOptions{Options: []string{"noatime"}}))
	}
	require.Equal(t, []string{"mount -t xfs -o nouuid,noatime " + h.device + " " + path}, h.runner.ran)
	require.DirExists(t, path)
}

func TestMountErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		out   string
		err   error
		shows func(h *fakeHost, path string) string // the mountinfo line after mount has run
		want  []string
	}{
		{
			name: "program missing", err: &exec.Error{Name: "mount", Err: exec.ErrNotFound},
			want: []string{"mount is not installed", "package util-linux"},
		},
		{name: "context done", err: context.DeadlineExceeded, want: []string{"deadline exceeded"}},
		{
			name: "refused", out: "mount: /x: unknown filesystem type 'xfs'.\n       dmesg(1) may have more information after failed mount system call.\n", err: exited(32),
			want: []string{"modprobe xfs", "exit status 32: mount: /x: unknown filesystem type 'xfs'."},
		},
		{name: "usage", out: "mount: bad usage", err: exited(1), want: []string{"called wrongly or without the right"}},
		{name: "success without effect", want: []string{"reported success, but the device is not mounted there"}},
		{
			name:  "another file system",
			shows: func(h *fakeHost, path string) string { return h.line(path, "ext4", "rw") },
			want:  []string{"reported success, but"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			path := h.path("v")
			h.runner.run = func(context.Context, string) (string, error) {
				if c.shows != nil {
					h.mountinfo(c.shows(h, path))
				}
				return c.out, c.err
			}
			err := h.Mount(t.Context(), h.device, path, "xfs", MountOptions{})
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.ErrorContains(t, err, "mount xfs on "+h.device+" at "+path)
			require.NotContains(t, err.Error(), "dmesg")
		})
	}
}

// A caller that was killed leaves its mount(8) behind, which may win against that of the next caller.
func TestMountIsDoneWhoeverMounted(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	h.runner.run = func(context.Context, string) (string, error) {
		h.mountinfo(h.line(path, "xfs", "rw"))
		return "mount: " + path + ": " + h.device + " already mounted on " + path + ".", exited(32)
	}
	require.NoError(t, h.Mount(t.Context(), h.device, path, "xfs", MountOptions{}))
}

func TestMountRefuses(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	mount := func(device, filesystem string, opts MountOptions) error {
		return h.Mount(t.Context(), device, path, filesystem, opts)
	}
	require.ErrorContains(t, mount("sda", "xfs", MountOptions{}), "not an absolute path")
	require.ErrorContains(t, mount(h.path("none"), "xfs", MountOptions{}), "no such file")
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{Options: []string{"bind"}}), "not allowed")
	h.mountinfo(h.line(path, "ext4", "rw"))
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{}), "but as ext4 of directory /; if nobody needs that, unmount it by hand: `umount "+path+"`")
	h.mountinfo(h.line(path, "xfs", "ro"))
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{}), "but otherwise: ")
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{}), "unmount it by hand: `umount "+path+"`")
	h.mountinfo("50 21 0:77 / " + path + " rw - tmpfs tmpfs rw")
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{}), "something else is mounted there: tmpfs (0:77)")
	require.ErrorContains(t, mount(h.device, "xfs", MountOptions{}), "unmount it by hand: `umount "+path+"`")
	require.ErrorIs(t, mount(h.device, "xfs", MountOptions{}), ErrOccupied)
	h.mountinfo()
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Error(t, mount(h.device, "xfs", MountOptions{}))
	require.Empty(t, h.runner.ran)
}

// A mount of a device that is gone is taken away first; one of another device that lives is not.
func TestMountReplacesADeadMount(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	h.mountinfo("50 21 8:4000 / " + path + " rw - xfs /dev/sdz rw")
	h.runner.run = func(_ context.Context, command string) (string, error) {
		h.mountinfo()
		if strings.HasPrefix(command, "mount ") {
			h.mountinfo(h.line(path, "xfs", "rw"))
		}
		return "", nil
	}
	require.NoError(t, h.Mount(t.Context(), h.device, path, "xfs", MountOptions{}))
	require.Equal(t, []string{"umount " + path, "mount -t xfs -o nouuid " + h.device + " " + path}, h.runner.ran)
}

// stat does not see that the kernel has shut an ext4 down or made it read-only.
func TestAnExt4ThatTheKernelGaveUpIsNotUsedAgain(t *testing.T) {
	for _, c := range []struct {
		name, options, super string
		want                 error // nil when it is in use as it is meant
	}{
		{"shut down", "rw", "rw,shutdown", ErrShutDown},
		{"made read-only", "rw", "ro", ErrReadOnly},
		{"made read-only, by a newer kernel", "rw", "rw,emergency_ro", ErrReadOnly},
		{"mounted read-only", "ro", "ro", nil},
		{"with errors", "rw", "rw", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.opts.SysExt4 = h.path("ext4")
			h.file("ext4/"+filepath.Base(h.device)+"/errors_count", "3\n")
			global, pod := h.path("v"), h.path("pod")
			line := func(id, path string) string {
				return fmt.Sprintf("%s 21 %d:%d / %s %s - ext4 %s %s", id, h.number.major, h.number.minor, path, c.options, h.device, c.super)
			}
			h.mountinfo(line("50", global), line("51", pod))
			readOnly := c.options == "ro"
			bound := h.Bind(t.Context(), global, pod, readOnly)
			mounted := h.Mount(t.Context(), h.device, global, "ext4", MountOptions{ReadOnly: readOnly})
			require.Empty(t, h.runner.ran)
			if c.want == nil {
				require.NoError(t, bound)
				require.NoError(t, mounted)
				return
			}
			for _, err := range []error{bound, mounted} {
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, "the pods that use the volume on this node must go")
			}
			require.ErrorContains(t, mounted, pod)

			h.mountinfo(line("50", global))
			h.runner.run = func(_ context.Context, command string) (string, error) {
				h.mountinfo()
				if strings.HasPrefix(command, "mount ") {
					h.mountinfo(h.line(global, "ext4", "rw"))
				}
				return "", nil
			}
			require.NoError(t, h.Mount(t.Context(), h.device, global, "ext4", MountOptions{}))
			require.Equal(t, []string{"umount " + global, "mount -t ext4 " + h.device + " " + global}, h.runner.ran)
		})
	}
}

func TestUnmount(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(ctx context.Context, h *fakeHost) (string, error)
		want string // "" is success
		is   error
	}{
		{name: "works", run: func(_ context.Context, h *fakeHost) (string, error) { h.mountinfo(); return "", nil }},
		{name: "somebody was faster", run: func(_ context.Context, h *fakeHost) (string, error) {
			h.mountinfo()
			return "umount: /x: not mounted.", exited(32)
		}},
		{
			name: "busy", want: "it is in use, by no process that can be seen", is: ErrBusy,
			run: func(context.Context, *fakeHost) (string, error) { return "umount: /x: target is busy.", exited(32) },
		},
		{
			name: "other trouble", want: "exit status 1: umount: /x: must be superuser", is: exited(1),
			run: func(context.Context, *fakeHost) (string, error) { return "umount: /x: must be superuser", exited(1) },
		},
		{
			name: "hangs", want: "not done within 200ms: its device does not answer", is: context.DeadlineExceeded,
			run: func(ctx context.Context, _ *fakeHost) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		},
		{
			name: "success without effect", want: "reported success, and it is still mounted",
			run: func(context.Context, *fakeHost) (string, error) { return "", nil },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			path := h.path("v")
			h.opts.Proc = h.path("no proc")
			h.mountinfo(h.line(path, "xfs", "rw"))
			h.runner.run = func(ctx context.Context, _ string) (string, error) { return c.run(ctx, h) }
			start := time.Now()
			err := h.Unmount(t.Context(), path)
			require.Less(t, time.Since(start), 5*time.Second)
			for _, command := range h.runner.ran {
				require.Equal(t, "umount "+path, command, "a living file system is never taken out of sight")
			}
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, fmt.Sprintf("unmount %s (%d:%d) at %s", h.device, h.number.major, h.number.minor, path))
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			if c.is == ErrBusy {
				require.Greater(t, len(h.runner.ran), 1, "a busy mount is tried again")
			}
		})
	}
}

func TestSaysBusy(t *testing.T) {
	for said, want := range map[string]bool{
		"umount: /mounts/busybox-data: target is busy.":                                   true,
		"umount: can't unmount /mounts/busybox-data: Device or resource busy":             true,
		"umount: /disk/mounts/busybox: Input/output error":                                false,
		"umount: /mounts/busybox-data: must be superuser to unmount.":                     false,
		"umount: /mounts/busybox-data: umount(2) system call failed: Input/output error.": false,
	} {
		require.Equal(t, want, saysBusy(said, "/mounts/busybox-data"), said)
	}
	require.False(t, saysBusy("umount: /mounts/target is busy: no mount point specified.", "/mounts/target is busy"))
}

// Who uses a dead mount may never end; who uses a living one would go on writing unseen.
func TestUnmountTakesADeadMountOutOfTheTree(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	h.mountinfo("50 21 8:4000 / " + path + " rw - xfs /dev/sdz rw")
	h.runner.run = func(_ context.Context, command string) (string, error) {
		if command != "umount -l "+path {
			return "umount: /x: target is busy.", exited(32)
		}
		h.mountinfo()
		return "", nil
	}
	require.NoError(t, h.Unmount(t.Context(), path))
	require.Greater(t, len(h.runner.ran), 2, "a busy mount is tried again first")
}

func TestUnmountEndsWithItsContext(t *testing.T) {
	h := newFakeHost(t)
	h.opts.UnmountTimeout = time.Minute
	h.mountinfo(h.line(h.path("v"), "xfs", "rw"))
	ctx, cancel := context.WithCancel(t.Context())
	h.runner.run = func(ctx context.Context, _ string) (string, error) { cancel(); <-ctx.Done(); return "", ctx.Err() }
	require.ErrorIs(t, h.Unmount(ctx, h.path("v")), context.Canceled)
}

// A mount that is not the last of its device is removed by a system call. Here the kernel knows nothing of it.
func TestUnmountOneOfSeveral(t *testing.T) {
	h := newFakeHost(t)
	require.NoError(t, os.Mkdir(h.path("v"), 0o700))
	h.mountinfo(h.line(h.path("v"), "xfs", "rw"), strings.Replace(h.line(h.path("w"), "xfs", "rw"), "50", "51", 1))
	err := h.Unmount(t.Context(), h.path("v"))
	require.Error(t, err)
	require.True(t, errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM), err)
	require.Empty(t, h.runner.ran)
}

func TestBindRefuses(t *testing.T) {
	h := newFakeHost(t)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.Bind(done, h.path("v"), h.path("w"), false), context.Canceled)
	h.mountinfo("50 21 8:4000 / " + h.path("v") + " rw - xfs /dev/sdz rw")
	require.ErrorContains(t, h.Bind(t.Context(), h.path("v"), h.path("w"), false), "device 8:4000 is gone")
	h.mountinfo(h.line(h.path("v"), "xfs", "ro"), strings.Replace(h.line(h.path("w"), "xfs", "ro"), "50", "51", 1))
	require.NoError(t, h.Bind(t.Context(), h.path("v"), h.path("w"), false), "a read-only mount can only be bound so")
	h.mountinfo(h.line(h.path("v"), "xfs", "rw"), strings.Replace(h.line(h.path("w"), "xfs", "ro"), "50", "51", 1))
	require.ErrorContains(t, h.Bind(t.Context(), h.path("v"), h.path("w"), false), "unmount it by hand: `umount "+h.path("w")+"`")
	h.mountinfo(h.line(h.path("v"), "xfs", "rw"), "51 21 0:77 / "+h.path("w")+" rw - tmpfs tmpfs rw")
	require.ErrorIs(t, h.Bind(t.Context(), h.path("v"), h.path("w"), false), ErrOccupied)
}

func TestRemoveDir(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	require.NoError(t, h.RemoveDir(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	for _, name := range []string{"a", "b", "c", "d"} {
		require.NoError(t, os.WriteFile(path+"/"+name, nil, 0o600))
	}
	err := h.RemoveDir(path)
	require.ErrorContains(t, err, "nothing is mounted there, but it has content")
	require.ErrorContains(t, err, "…")
	require.FileExists(t, path+"/a")
	require.ErrorIs(t, h.RemoveDir(path+"/a"), unix.ENOTDIR)
	h.mountinfo(h.line(path, "xfs", "rw"))
	require.ErrorContains(t, h.RemoveDir(path), "still mounted")
	require.ErrorContains(t, h.RemoveDir("relative"), "not absolute")
}

func TestFormatErrors(t *testing.T) {
	blank := device(t, 64<<20, 0, "")
	run := &fakeRunner{run: func(ctx context.Context, _ string) (string, error) {
		if ctx.Done() != nil {
			t.Error("mkfs may be stopped")
		}
		return "", nil
	}}
	m := New(run, Options{})
	format := func(ctx context.Context, filesystem string) error {
		return m.Format(ctx, FormatRequest{Device: blank, Filesystem: filesystem})
	}
	require.ErrorContains(t, format(t.Context(), "xfs"), "the smallest xfs has")
	require.ErrorContains(t, format(t.Context(), "zfs"), "not supported")
	require.Empty(t, run.ran)

	require.ErrorContains(t, format(t.Context(), "ext4"), "mkfs.ext4 reported success, but found on the device: all places")
	run.run = func(context.Context, string) (string, error) { return "mkfs.ext4: bad luck\n", exited(1) }
	require.ErrorContains(t, format(t.Context(), "ext4"), "make ext4 on "+blank+": exit status 1: mkfs.ext4: bad luck")
	run.run = func(context.Context, string) (string, error) {
		return "", &exec.Error{Name: "mkfs.ext4", Err: exec.ErrNotFound}
	}
	require.ErrorContains(t, format(t.Context(), "ext4"), "mkfs.ext4 is not installed on this host; it comes with the package e2fsprogs")
	run.ran = nil
	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, format(done, "ext4"), context.Canceled)
	require.Empty(t, run.ran)
}

func TestGrowRefuses(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	grow := func() error { return h.Grow(t.Context(), h.device, path, "xfs") }
	require.ErrorContains(t, grow(), "nothing is mounted at "+path+"; mount it first")
	h.mountinfo("50 21 0:77 / " + path + " rw - tmpfs tmpfs rw")
	require.ErrorContains(t, grow(), "something else: tmpfs (0:77) at "+path+", tmpfs, rw; if nobody needs that, unmount it by hand: `umount "+path+"`")
	h.mountinfo(h.line(path, "ext4", "rw"))
	require.ErrorContains(t, grow(), "any other with its own tools")
	h.mountinfo(h.line(path, "xfs", "ro"))
	require.ErrorContains(t, grow(), "mount it with write access")
	require.ErrorContains(t, h.Grow(t.Context(), h.path("none"), path, "xfs"), "no such file")
}

func TestMountedSize(t *testing.T) {
	for _, c := range []struct {
		name, filesystem string
		want             int64
		err              string
	}{
		{"xfs", "xfs", 300 << 20, ""},
		{"ext4", "ext4", 64 << 20, ""},
		{"ext3", "ext4", 0, "its superblock is not there"},
		{"swap", "xfs", 0, "its superblock is not there"},
	} {
		file, _ := captured(t, c.name)
		blocks, blockSize, err := mountedSize(file, Mount{Filesystem: c.filesystem})
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, blocks*blockSize)
	}
	file, _ := captured(t, "xfs")
	overwrite(t, file, 40, []byte("changed"))
	_, _, err := mountedSize(file, Mount{Filesystem: "xfs"})
	require.ErrorContains(t, err, "cannot be used: wrong checksum")
	_, _, err = mountedSize(file, Mount{Filesystem: "xfs", Path: t.TempDir()})
	require.ErrorContains(t, err, "XFS_IOC_FSGEOMETRY_V1")
}

func TestReleased(t *testing.T) {
	m := New(nil, Options{})
	require.NoError(t, m.Released(t.Context(), "/dev/no-such-device"), "gone is released")
	require.ErrorContains(t, m.Released(t.Context(), "/dev/null/x"), "not a directory")
}

func TestMountReason(t *testing.T) {
	for _, c := range []struct {
		said, filesystem string
		readOnly         bool
		want             string
	}{
		{"XFS (sdb): recovery required on read-only device.", "xfs", true, "option norecovery"},
		{"EXT4-fs (sdb): write access unavailable, cannot proceed (try mounting with noload)", "ext4", true, "option noload"},
		{"mount(2) system call failed: Structure needs cleaning.", "xfs", false, "xfs_repair -n /dev/sdb"},
		{"EXT4-fs error: Corruption of in-memory data", "ext4", false, "e2fsck -n /dev/sdb"},
		{"XFS (sdb): Superblock has unknown read-only compatible features (0x8) enabled.", "xfs", false, "made by newer tools; use a newer kernel or another volume"},
		{"EXT4-fs (sdb): couldn't mount RDWR because of unsupported optional features (10000)", "ext4", false, "made by newer tools; use a newer kernel or another volume"},
		{"mount: /x: /dev/sdb already mounted or mount point busy.", "xfs", false, "mounted read-only elsewhere"},
		{"mount: /x: /dev/sdb already mounted or mount point busy.", "xfs", true, "perhaps with write access"},
		{"mount: /x: can't read superblock on /dev/sdb.", "ext4", false, "could not be read: look at dmesg and at its connection (`iscsi status`)"},
		{"mount: strange", "ext4", false, ""},
	} {
		require.Contains(t, mountReason(32, c.said, "/dev/sdb", c.filesystem, c.readOnly), c.want, c.said)
	}
	for code, want := range map[int]string{1: "called wrongly", 2: "no memory", 4: "internal error", 16: "/run/mount", 32: ""} {
		require.Contains(t, codeReason(code), want)
	}
}

func TestKernelMessages(t *testing.T) {
	record := "4,1234,5678901,-;XFS (sdb1): log mount failed; error -22 \n SUBSYSTEM=block\n DEVICE=b8:16\n"
	require.Equal(t, "XFS (sdb1): log mount failed; error -22", kernelMessage([]byte(record)))
	require.Empty(t, kernelMessage([]byte("no message")))
	for name, want := range map[string]bool{"sdb1": true, "sdb": false, "b1": false, "XFS": true, "dm-3": false} {
		require.Equal(t, want, namesDevice("XFS (sdb1): bad", name), name)
	}
	require.True(t, namesDevice("EXT4-fs (dm-3): bad", "dm-3"))
	log := openKernelLog(t.TempDir() + "/none")
	defer log.close()
	require.Empty(t, log.about("/dev/sdb"), "no access is no message")
}

func TestOneLine(t *testing.T) {
	require.Equal(t, "a; b", oneLine([]byte(" a\n\n  b \n")))
	long := oneLine([]byte(strings.Repeat("ä", 2000)))
	require.Less(t, len(long), 1010)
	require.True(t, strings.HasSuffix(long, "ä…"))
	for program, want := range map[string]string{"mkfs.xfs": "xfsprogs", "resize2fs": "e2fsprogs", "umount": "util-linux"} {
		require.Equal(t, want, packageOf(program))
	}
}

func TestPanicInAGoroutineIsAnError(t *testing.T) {
	_, err := inContext(t.Context(), func() (int, error) { panic("canary") })
	require.ErrorContains(t, err, "fault in package mount: canary")
}
