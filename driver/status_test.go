package driver

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// status returns the volumes by their names in Kubernetes, or by their IQN.
func (d *desk) status(t *testing.T) map[string]VolumeStatus {
	t.Helper()
	volumes, err := d.Status(t.Context())
	require.NoError(t, err)
	byName := map[string]VolumeStatus{}
	for _, volume := range volumes {
		name := volume.PV
		if name == "" {
			name = volume.IQN
		}
		require.NotContains(t, byName, name, "it is listed twice")
		byName[name] = volume
	}
	return byName
}

func TestHealthInWords(t *testing.T) {
	const lost = "10.0.1.1:3260"
	tests := map[string]struct {
		change func(t *testing.T, d *desk)
		health []string
	}{
		"in use":           {func(*testing.T, *desk) {}, []string{"ok"}},
		"a portal is down": {func(_ *testing.T, d *desk) { d.down = []string{lost} }, []string{"portal 10.0.1.1:3260 is down"}},
		"all portals down": {func(_ *testing.T, d *desk) { d.down = []string{lost, "10.0.0.1:3260"} }, []string{"portal 10.0.0.1:3260 is down", "portal 10.0.1.1:3260 is down"}},
		"a portal with two sessions, one down": {func(_ *testing.T, d *desk) {
			d.sessions = []iscsi.Session{{IQN: iqnOne, Portal: lost, State: "LOGGED_IN"}}
			d.down = []string{lost}
		}, []string{"ok"}},
		"a portal missing": {func(_ *testing.T, d *desk) {
			disk := d.disks["/dev/sdb"]
			disk.Target.Portals = disk.Target.Portals[:1]
			d.disks["/dev/sdb"] = disk
		}, []string{"portal 10.0.1.1:3260 has no session"}},
		"xfs shut down":             {func(_ *testing.T, d *desk) { d.trouble[d.mounts[1].Path] = mount.ErrShutDown }, []string{mount.ErrShutDown.Error()}},
		"ext4 made read-only":       {func(_ *testing.T, d *desk) { d.trouble[d.mounts[0].Path] = mount.ErrReadOnly }, []string{mount.ErrReadOnly.Error()}},
		"disk offline":              {func(_ *testing.T, d *desk) { d.diskState = "offline" }, []string{"disk /dev/sdb is offline"}},
		"disk blocked, portal down": {func(_ *testing.T, d *desk) { d.diskState, d.down = "blocked", []string{lost} }, []string{"portal 10.0.1.1:3260 is down"}},
		"logged out under the mount": {func(_ *testing.T, d *desk) {
			delete(d.disks, "/dev/sdb")
			d.trouble[d.mounts[0].Path], d.trouble[d.mounts[1].Path] = mount.ErrDeviceGone, mount.ErrDeviceGone
		}, []string{"its device is gone", "no session"}},
		"not mounted yet": {func(t *testing.T, d *desk) {
			d.mounts = nil
			age(t, d.journal().inUse("pv-1"), time.Minute)
		}, []string{"ok, not mounted"}},
		"not mounted for long": {func(_ *testing.T, d *desk) { d.mounts = nil }, []string{"leftover: it is not mounted, and nobody has asked for it for 1h0m0s"}},
		"here before a reboot": {func(_ *testing.T, d *desk) {
			d.mounts = nil
			delete(d.disks, "/dev/sdb")
		}, []string{"leftover: it has neither session nor mount, and nobody has asked for it for 1h0m0s"}},
		"leaving": {func(t *testing.T, d *desk) {
			d.mounts = nil
			require.NoError(t, d.journal().leave("pv-1"))
		}, []string{"leftover: its removal began and did not end"}},
		"no disk": {func(_ *testing.T, d *desk) {
			d.mounts = nil
			d.sessions = []iscsi.Session{{IQN: iqnOne, Portal: "10.0.0.1:3260", State: "LOGGED_IN"}, {IQN: iqnOne, Portal: lost, State: "LOGGED_IN"}}
			delete(d.disks, "/dev/sdb")
			require.NoError(t, d.journal().write("pv-1", mustRead(t, d, "pv-1"))) // asked for just now
		}, []string{"no disk"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.running(t, "pv-1", iqnOne, "/dev/sdb")
			test.change(t, d)
			volumes := d.status(t)
			require.Len(t, volumes, 1)
			require.Equal(t, test.health, volumes["pv-1"].Health)
			require.Equal(t, "kube-pv-1", volumes["pv-1"].Volume)
			require.Empty(t, d.takeDone(), "status changed something")
		})
	}
}

func mustRead(t *testing.T, d *desk, key string) record {
	t.Helper()
	r, found := d.journal().read(key)
	require.True(t, found)
	return r
}

func TestStatusShowsWhatTheJournalDoesNotKnow(t *testing.T) {
	d := newDesk(t)
	d.running(t, "pv-1", iqnOne, "/dev/sdb")
	d.running(t, "pv-2", iqnTwo, "/dev/sdc")
	require.NoError(t, os.RemoveAll(d.Config.StateDir))
	d.sessions = []iscsi.Session{
		{IQN: "iqn.2026-11.com.example:other", Portal: "10.9.9.9:3260", State: "LOGGED_IN", Disks: []iscsi.Disk{{Path: "/dev/sdx", Vendor: diskVendor, Serial: "x"}}},
		{IQN: targetPrefix + "else", Portal: "10.9.9.9:3260", State: "LOGGED_IN", Disks: []iscsi.Disk{{Path: "/dev/sdy", Vendor: "LIO-ORG", Serial: "y"}}},
		{IQN: targetPrefix + "empty", Portal: "10.0.0.1:3260", State: "FAILED"},
	}
	d.mounts = append(d.mounts, mount.Mount{Device: "/dev/sdz", Path: d.podPath("pod-9", "pv-gone"), Filesystem: "ext4"}, mount.Mount{Device: "/dev/sda", Path: "/"})
	d.trouble[d.podPath("pod-9", "pv-gone")] = mount.ErrDeviceGone
	volumes := d.status(t)
	require.Len(t, volumes, 4, "a foreign session or mount is shown, or one of the array's is not: %v", volumes)
	for _, name := range []string{"pv-1", "pv-2"} {
		require.Equal(t, []string{"not in this driver's journal"}, volumes[name].Health)
		require.Empty(t, volumes[name].Volume)
		require.Len(t, volumes[name].Mounts, 2)
	}
	require.Equal(t, []string{"not in this driver's journal", "portal 10.0.0.1:3260 is down"}, volumes[targetPrefix+"empty"].Health)
	require.Equal(t, []string{"its device is gone", "not in this driver's journal", "no session"}, volumes["pv-gone"].Health)
	require.Equal(t, "/dev/sdz", volumes["pv-gone"].Device)
}

func TestStatusOfAVolumeThatMultipathHas(t *testing.T) {
	d := newDesk(t)
	d.running(t, "pv-1", iqnOne, "/dev/sdb")
	d.layers = []iscsi.Layer{{Path: "/dev/dm-d", Number: numberOfDisk("/dev/dm-d"), Multipath: true}}
	for i := range d.mounts {
		d.mounts[i].Device = "/dev/dm-d"
	}
	volume := d.status(t)["pv-1"]
	require.Equal(t, "/dev/dm-d", volume.Device)
	require.Len(t, volume.Mounts, 2, "the mounts of the map were not taken for the volume's")
	require.Equal(t, []string{"ok"}, volume.Health)
}

func TestStatusOfAJournalThatCannotBeRead(t *testing.T) {
	d := newDesk(t)
	d.write(t, d.journal().inUse("pv-1"), "{")
	d.write(t, d.journal().inUse("pv-2"), `{"name":"pv-2","appInstance":"v","device":"/dev/sdb"}`)
	volumes := d.status(t)
	require.Contains(t, volumes["pv-1"].Health[0], "unexpected end of JSON")
	require.Contains(t, volumes["pv-2"].Health[0], "no iscsi:// address")
}

func TestStatusFails(t *testing.T) {
	for _, what := range []string{"sessions", "mountinfo"} {
		t.Run(what, func(t *testing.T) {
			d := newDesk(t)
			d.fails[what] = errInjected
			_, err := d.Status(t.Context())
			require.ErrorIs(t, err, errInjected)
		})
	}
}

func TestStatusTable(t *testing.T) {
	d := newDesk(t)
	d.running(t, "pv-datera-0", iqnOne, "/dev/sdb")
	d.running(t, "pv-datera-1", iqnTwo, "/dev/sdc")
	disk := d.disks["/dev/sdc"]
	disk.Bytes = 1536 << 20
	d.disks["/dev/sdc"] = disk
	d.mounts = append(d.mounts, mount.Mount{Device: "/dev/sdc", Path: d.podPath("pod-2", "pv-datera-1"), Filesystem: "xfs"},
		mount.Mount{Device: "/dev/sdc", Path: "/mnt/by-hand", Filesystem: "xfs"})
	d.down = []string{"10.0.1.1:3260"}
	d.journalled(t, "pv-gone", targetPrefix+"tc:01:sn:0000000000000003", 3*time.Hour)
	volumes, err := d.Status(t.Context())
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, WriteStatus(&table, volumes))
	goldenText(t, "status.txt", table.String(), filepath.Dir(d.kubelet))
	require.NotRegexp(t, ` \n`, table.String())

	table.Reset()
	require.NoError(t, WriteStatus(&table, nil))
	require.Equal(t, "no volume on this node\n", table.String())
}

func TestStatusAsJSON(t *testing.T) {
	d := newDesk(t)
	empty, err := d.Status(t.Context())
	require.NoError(t, err)
	var text bytes.Buffer
	require.NoError(t, WriteJSON(&text, empty))
	require.Equal(t, "[]\n", text.String())

	d.running(t, "pv-1", iqnOne, "/dev/sdb")
	volumes, err := d.Status(t.Context())
	require.NoError(t, err)
	text.Reset()
	require.NoError(t, WriteJSON(&text, volumes))
	var read []VolumeStatus
	require.NoError(t, json.Unmarshal(text.Bytes(), &read))
	require.Equal(t, volumes, read)
	goldenText(t, "status.json", text.String(), filepath.Dir(d.kubelet))
}

func TestPortalsAreComparedByWhatTheyMean(t *testing.T) {
	require.True(t, samePortal("[fd00::1]:3260", "[fd00:0:0:0:0:0:0:1]:3260"))
	require.True(t, samePortal("array.example.com:3260", "array.example.com:3260"))
	require.False(t, samePortal("10.0.0.1:3260", "10.0.0.1:3261"))
	require.False(t, samePortal("a:3260", "b:3260"))
}
