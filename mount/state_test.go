package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func (h *fakeHost) file(name, content string) {
	h.t.Helper()
	require.NoError(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o700))
	require.NoError(h.t, os.WriteFile(h.path(name), []byte(content), 0o600))
}

func TestTrouble(t *testing.T) {
	h := newFakeHost(t)
	h.opts.SysExt4 = h.path("ext4")
	sound := Mount{Device: "/dev/sdb", Major: h.number.major, Minor: h.number.minor, Path: h.directory, Filesystem: "ext4",
		Options: []string{"rw", "relatime"}, SuperOptions: []string{"rw"}}
	with := func(change func(*Mount)) Mount {
		changed := sound
		change(&changed)
		return changed
	}
	for _, c := range []struct {
		name   string
		mount  Mount
		errors string // that ext4 counts
		want   error
	}{
		{"sound", sound, "0\n", nil},
		{"an older kernel's ext4 after errors", with(func(m *Mount) { m.SuperOptions = []string{"ro"} }), "3\n", ErrReadOnly},
		{"a newer kernel's", with(func(m *Mount) { m.SuperOptions = []string{"rw", "emergency_ro"} }), "3\n", ErrReadOnly},
		{"shut down", with(func(m *Mount) { m.SuperOptions = []string{"rw", "shutdown"} }), "0\n", ErrShutDown},
		{"with errors", sound, "3\n", ErrFaulty},
		{"remounted read-only by hand", with(func(m *Mount) { m.SuperOptions = []string{"ro"} }), "0\n", nil},
		{"mounted read-only", with(func(m *Mount) { m.Options, m.SuperOptions = []string{"ro"}, []string{"ro"} }), "0\n", nil},
		{"without its device", with(func(m *Mount) { m.Minor = 99999 }), "0\n", ErrDeviceGone},
		{"xfs", with(func(m *Mount) { m.Filesystem, m.SuperOptions = "xfs", []string{"ro"} }), "3\n", nil},
		{"of no device", with(func(m *Mount) { m.Major, m.Minor, m.Filesystem = 0, 50, "tmpfs" }), "0\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.file("ext4/sdb/errors_count", c.errors)
			err := h.Trouble(t.Context(), c.mount)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.want)
		})
	}
	state := filepath.Join(h.sysfs(h.number), "device", "state")
	require.NoError(t, os.MkdirAll(filepath.Dir(state), 0o700))
	require.NoError(t, os.WriteFile(state, []byte("offline\n"), 0o600))
	require.ErrorContains(t, h.Trouble(t.Context(), sound), `in state "offline"`)
}

func TestExtErrorsAreFoundByTheDevicesNumber(t *testing.T) {
	h := newFakeHost(t)
	h.opts.SysExt4 = h.path("ext4")
	require.NoError(t, os.Symlink("../../devices/virtual/block/dm-3", h.sysfs(deviceNumber{253, 3})))
	h.file("ext4/dm-3/errors_count", "7\n")
	require.Equal(t, 7, h.extErrors(Mount{Device: "/dev/mapper/mpatha", Major: 253, Minor: 3}))
	require.Zero(t, h.extErrors(Mount{Device: "/dev/mapper/mpathb", Major: 253, Minor: 4}))
}

func TestHolding(t *testing.T) {
	h := newFakeHost(t)
	require.NoError(t, os.MkdirAll(h.path("exec/inner"), 0o700))
	require.NoError(t, os.Symlink(h.path("exec"), h.path("link")))
	h.mountinfo("50 21 0:40 / "+h.path("exec")+" rw,noexec - tmpfs none rw", "51 50 0:41 / "+h.path("exec/inner")+" ro - tmpfs none rw")
	for path, want := range map[string]string{
		h.path("exec"):                  h.path("exec"),
		h.path("exec/x/not/there"):      h.path("exec"),
		h.path("link/y"):                h.path("exec"),
		h.path("exec/inner"):            h.path("exec/inner"),
		h.path("link/inner/not"):        h.path("exec/inner"),
		h.path("execute"):               "/",
		"/nowhere/at/all":               "/",
		h.path("exec") + "/../exec/./z": h.path("exec"),
	} {
		held, err := h.Holding(path)
		require.NoError(t, err, path)
		require.Equal(t, want, held.Path, path)
	}
	require.NoError(t, os.Remove(h.opts.MountInfo))
	_, err := h.Holding(h.path("exec"))
	require.ErrorContains(t, err, "read mounts")
}

// process makes one in a /proc of the test's own.
func (h *fakeHost) process(pid int, comm, namespace, mountinfo string, files ...string) {
	h.t.Helper()
	dir := fmt.Sprintf("proc/%d/", pid)
	h.file(dir+"comm", comm+"\n")
	h.file(dir+"mountinfo", mountinfo)
	require.NoError(h.t, os.MkdirAll(h.path(dir+"ns"), 0o700))
	require.NoError(h.t, os.MkdirAll(h.path(dir+"fd"), 0o700))
	require.NoError(h.t, os.Symlink("mnt:["+namespace+"]", h.path(dir+"ns/mnt")))
	for n, file := range files {
		require.NoError(h.t, os.Symlink(file, h.path(fmt.Sprintf("%sfd/%d", dir, n))))
	}
}

func TestUsers(t *testing.T) {
	h := newFakeHost(t)
	h.opts.Proc = h.path("proc")
	const none = "21 1 253:0 / / rw - ext4 /dev/root rw\n"
	h.file("proc/uptime", "1 1")
	h.process(1, "systemd", "1", none, "/dev/null", "/no/such/file", "socket:[1]")
	h.process(2, "multipathd", "1", none, h.device)
	users, err := h.Users(t.Context(), h.device)
	require.NoError(t, err)
	require.Empty(t, users)

	h.process(7, "dd", "1", none, "/dev/null", h.device)
	h.process(8, "pause", "2", none+h.line("/data", "xfs", "rw")+"\n")
	h.process(9, "app", "2", none+h.line("/data", "xfs", "rw")+"\n")
	users, err = h.Users(t.Context(), h.device)
	require.NoError(t, err)
	require.Equal(t, []string{"process 7 (dd): has " + h.device + " open", "process 8 (pause): mounted at /data"}, users)

	_, err = h.Users(t.Context(), h.path("not there"))
	require.ErrorContains(t, err, "look for users of")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Users(over, h.device)
	require.ErrorIs(t, err, context.Canceled, "an unfinished search is no proof")
	h.file("proc/8/mountinfo", "nonsense\n")
	_, err = h.Users(t.Context(), h.device)
	require.ErrorContains(t, err, "parse mounts", "a namespace that cannot be read is no proof")
	h.opts.Proc = h.path("no proc")
	_, err = h.Users(t.Context(), h.device)
	require.Error(t, err)
}

func TestUsersOfThisVeryProcess(t *testing.T) {
	h := newFakeHost(t)
	file, err := os.Open(h.device)
	require.NoError(t, err)
	defer file.Close()
	users, err := h.Users(t.Context(), h.device)
	if errors.Is(err, fs.ErrPermission) {
		lacking(t, "no right to look at all processes")
	}
	require.NoError(t, err)
	require.Contains(t, strings.Join(users, "\n"), fmt.Sprintf("process %d (", os.Getpid()))
}
