package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sampleMountinfo = `21 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
42 21 0:39 / /a rw,relatime - tmpfs  rw
43 21 0:40 / /x` + "\u00a0" + `y rw,relatime - tmpfs nbsp rw
44 21 8:16 / /b\040b rw,noatime shared:7 master:3 - xfs /dev/sdb rw,attr2,nouuid
45 44 8:32 /sub /b\040b ro,relatime - ext4 /dev/sdc rw
46 21 8:48 / /ro rw,relatime - ext4 /dev/sdd ro
`

func TestParseMounts(t *testing.T) {
	mounts, err := parseMounts([]byte(sampleMountinfo))
	require.NoError(t, err)
	require.Len(t, mounts, 6, "a foreign mount without a source, or with an odd path, must not hide the others")
	require.Equal(t, Mount{
		Device: "/dev/sdb", Major: 8, Minor: 16, Path: "/b b", Root: "/", Filesystem: "xfs",
		Options: []string{"rw", "noatime"}, SuperOptions: []string{"rw", "attr2", "nouuid"}, id: 44, parent: 21, peers: "shared:7",
	}, mounts[3])
	require.True(t, mounts[4].ReadOnly, "the mount is read-only")
	require.True(t, mounts[5].ReadOnly, "the file system is read-only")
	require.Equal(t, "/dev/sdd (8:48) at /ro, ext4, ro", mounts[5].String())
	require.Equal(t, "/dev/sdb (8:16) at /b b, xfs, rw", mounts[3].String())

	_, err = parseMounts([]byte("not a mount\n"))
	require.ErrorContains(t, err, "parse mounts")
}

// As it was on a node whose /var/lib/kubelet is bound from another disk, with a volume that one pod uses.
const boundKubelet = `23 1 0:2 / / rw shared:1 - rootfs none rw
60 23 254:0 / /disk rw,relatime shared:27 - ext4 /dev/vda rw
72 23 254:0 /var/lib/kubelet /var/lib/kubelet rw,relatime shared:27 - ext4 /dev/vda rw
110 72 8:0 / /var/lib/kubelet/mounts/pv rw,relatime shared:68 - xfs /dev/sda rw
111 60 8:0 / /disk/var/lib/kubelet/mounts/pv rw,relatime shared:68 - xfs /dev/sda rw
113 60 8:0 / /disk/var/lib/kubelet/pods/1/pv rw,relatime shared:68 - xfs /dev/sda rw
112 72 8:0 / /var/lib/kubelet/pods/1/pv rw,relatime shared:68 - xfs /dev/sda rw
114 23 8:0 / /by-hand rw,relatime shared:68 - xfs /dev/sda rw
`

func TestSameKnowsWhatPropagationMade(t *testing.T) {
	h := newFakeHost(t)
	require.NoError(t, os.WriteFile(h.opts.MountInfo, []byte(boundKubelet), 0o600))
	global, mounted := topmost(must(h.mounts()), "/var/lib/kubelet/mounts/pv")
	require.True(t, mounted)
	var paths []string
	for _, mount := range must(h.Same(global)) {
		paths = append(paths, mount.Path)
	}
	require.Equal(t, []string{"/var/lib/kubelet/mounts/pv", "/var/lib/kubelet/pods/1/pv", "/by-hand"}, paths)

	alone := strings.Replace(boundKubelet, "shared:27", "master:27", 2)
	require.NoError(t, os.WriteFile(h.opts.MountInfo, []byte(alone), 0o600))
	require.Len(t, must(h.Same(global)), 5, "mounts on directories that are no peers come and go alone")
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestTopmost(t *testing.T) {
	of := func(id, parent int, path string) Mount { return Mount{id: id, parent: parent, Path: path} }
	for _, c := range []struct {
		name   string
		mounts []Mount
		want   int
	}{
		{"none", []Mount{of(1, 0, "/"), of(2, 1, "/other")}, 0},
		{"one", []Mount{of(1, 0, "/"), of(2, 1, "/p")}, 2},
		{"two, in order", []Mount{of(2, 1, "/p"), of(3, 2, "/p")}, 3},
		{"two, the upper first", []Mount{of(3, 2, "/p"), of(2, 1, "/p")}, 3},
		{"three, mixed", []Mount{of(3, 2, "/p"), of(4, 3, "/p"), of(2, 1, "/p")}, 4},
		{"a mount below is not on top", []Mount{of(2, 1, "/p"), of(3, 2, "/p/q")}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			top, mounted := topmost(c.mounts, "/p")
			require.Equal(t, c.want != 0, mounted)
			require.Equal(t, c.want, top.id)
		})
	}
}

func TestAt(t *testing.T) {
	h := newFakeHost(t)
	path := h.path("v")
	h.mountinfo(h.line(path, "xfs", "rw"))
	there, mounted, err := h.At(path + "/")
	require.NoError(t, err)
	require.True(t, mounted)
	require.Equal(t, h.device, there.Device)
	_, mounted, err = h.At(h.path("no/such/directory"))
	require.NoError(t, err)
	require.False(t, mounted)
	_, _, err = h.At("relative")
	require.ErrorContains(t, err, "not absolute")
	_, _, err = h.At("/")
	require.ErrorContains(t, err, "not a place for mounts")

	mounts, err := h.Of(h.device)
	require.NoError(t, err)
	require.Len(t, mounts, 1)
	same, err := h.Same(there)
	require.NoError(t, err)
	require.Equal(t, mounts, same)
	other := there
	other.Minor++
	same, err = h.Same(other)
	require.NoError(t, err)
	require.Empty(t, same, "mounts of another device")
	_, err = h.Of(h.path("mountinfo"))
	require.ErrorContains(t, err, "is not a block device")
	_, err = h.Of(h.path("gone"))
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.Remove(h.opts.MountInfo))
	_, _, err = h.At(path)
	require.ErrorContains(t, err, "read mounts")
	_, err = h.Of(h.device)
	require.ErrorContains(t, err, "read mounts")
	_, err = h.Same(there)
	require.ErrorContains(t, err, "read mounts")
}

func TestDead(t *testing.T) {
	h := newFakeHost(t)
	alive := Mount{Major: h.number.major, Minor: h.number.minor, Path: h.directory, Filesystem: "xfs"}
	require.NoError(t, h.dead(alive))
	state := filepath.Join(h.sysfs(h.number), "device", "state")
	require.NoError(t, os.Mkdir(filepath.Dir(state), 0o700))
	for _, c := range []struct {
		state, dead, unreadable string
	}{
		{"running\n", "", ""},
		{"blocked\n", "", `the disk is in state "blocked"`},
		{"transport-offline\n", `is in state "transport-offline"`, `the disk is in state "transport-offline"`},
	} {
		require.NoError(t, os.WriteFile(state, []byte(c.state), 0o600))
		check(t, h.dead(alive), c.dead)
		check(t, h.mustRun(h.device), c.unreadable)
		if c.unreadable != "" {
			_, err := h.Inspect(t.Context(), h.device)
			require.ErrorContains(t, err, c.unreadable)
		}
	}
	require.NoError(t, os.RemoveAll(filepath.Dir(state)))
	gone := alive
	gone.Minor = 99999
	require.ErrorContains(t, h.dead(gone), "is gone")
	gone.Major = 0 // tmpfs and the like have no device
	require.NoError(t, h.dead(gone))
	other := alive
	other.Filesystem, other.Path = "nfs", filepath.Join(h.directory, "not touched")
	require.NoError(t, h.dead(other))
}

func TestAMultipathMapIsReadWhileOneOfItsPathsRuns(t *testing.T) {
	for _, c := range []struct {
		name, uuid string
		paths      []string
		want       string
	}{
		{"one of two runs", "mpath-3600", []string{"blocked", "running"}, ""},
		{"none runs", "mpath-3600", []string{"blocked", "transport-offline"}, `no path of the multipath map runs (states: ["blocked" "transport-offline"])`},
		{"no paths", "mpath-3600", nil, "no path of the multipath map runs"},
		{"no multipath map", "LVM-abc", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			directory := fmt.Sprintf("sys/%d:%d/", h.number.major, h.number.minor)
			h.file(directory+"dm/uuid", c.uuid+"\n")
			for n, state := range c.paths {
				h.file(fmt.Sprintf("%sslaves/sd%c/device/state", directory, 'a'+n), state+"\n")
			}
			check(t, h.mustRun(h.device), c.want)
		})
	}
}

// check wants an error with a text in it, or none.
func check(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, want)
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte(sampleMountinfo), "/b b")
	f.Add([]byte("1 1 0:0 / / - - - -\n"), "/")
	f.Add([]byte("45 45 8:32 / /p ro - ext4 /dev/sdc rw\n"), "/p")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		mounts, err := parseMounts(text)
		if err != nil {
			return
		}
		top, mounted := topmost(mounts, path)
		if mounted && top.Path != path {
			t.Fatalf("asked for %q, got %q", path, top.Path)
		}
	})
}
