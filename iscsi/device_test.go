package iscsi

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const realSerial = "0b5f9f3c-7c21-4a5e-9d0c-6f1f1a2b3c4d" // in testdata/*.tree

func TestFindAndIdentifyInCapturedTrees(t *testing.T) {
	const iqn = "iqn.2026-11.test:"
	for _, test := range []struct {
		tree     string
		target   Target
		found    bool
		path     string
		paths    []string
		portals  []Portal
		identify []string // names that Identify must know as the same
	}{
		{"two-portals", Target{IQN: iqn + "vol1", LUN: 1, Serial: realSerial}, true,
			"sdb", []string{"sdb", "sdc"}, []Portal{"127.0.0.1:3260", "[fd00::99]:3260"}, []string{"sdb"}},
		{"two-portals", Target{IQN: iqn + "vol2", LUN: 1, Serial: "beaf21"}, true,
			"sda", []string{"sda"}, []Portal{"127.0.0.1:3260"}, []string{"sda"}},
		{"two-portals", Target{IQN: iqn + "vol2", LUN: 0, Serial: "beaf20"}, false, "", nil, nil, nil}, // a controller
		{"two-portals", Target{IQN: iqn + "vol2", LUN: 1, Serial: realSerial}, false, "", nil, nil, nil},
		{"two-portals", Target{IQN: iqn + "vol1", LUN: 2, Serial: realSerial}, false, "", nil, nil, nil},
		{"two-portals", Target{IQN: iqn + "vol", LUN: 1, Serial: realSerial}, false, "", nil, nil, nil},
		{"multipath", Target{IQN: iqn + "vol1", LUN: 1, Serial: realSerial}, true,
			"dm-0", []string{"sda", "sdb"}, []Portal{"10.99.0.1:3260", "10.99.0.2:3260"}, []string{"sda", "sdb", "dm-0"}},
		{"lio", Target{IQN: iqn + "lio1", LUN: 0, Serial: "7d5e3c1a-2b4f-4e6d-8c9b-0a1b2c3d4e5f"}, true,
			"sda", []string{"sda"}, []Portal{"127.0.0.1:3260"}, []string{"sda"}},
		{"lost", Target{IQN: iqn + "vol1", LUN: 1, Serial: realSerial}, false, "sda", []string{"sda"}, nil, []string{"sda"}},
	} {
		t.Run(test.tree+" "+test.target.String(), func(t *testing.T) {
			m := loadTree(t, test.tree)
			i := m.initiator()
			want := Device{Target: test.target, Bytes: 64 << 20}
			want.Path = m.path("dev", test.path)
			for _, name := range test.paths {
				want.Paths = append(want.Paths, m.path("dev", name))
			}
			want.Target.Portals = test.portals

			device, found, err := i.Find(t.Context(), test.target)
			require.NoError(t, err)
			require.Equal(t, test.found, found)
			if found {
				require.Equal(t, want, device)
			}
			for _, name := range test.identify {
				identified, err := i.Identify(m.path("dev", name))
				require.NoError(t, err)
				require.Equal(t, want, identified)
			}
			require.Empty(t, m.programs())
		})
	}
}

func TestSessionsInCapturedTrees(t *testing.T) {
	i := loadTree(t, "lost").initiator()
	sessions, err := i.sessions("iqn.2026-11.test:vol1")
	require.NoError(t, err)
	require.Len(t, sessions, 1)
	require.Equal(t, "FAILED", sessions[0].state)
	require.Empty(t, sessions[0].current, "a lost connection has no address")
	require.True(t, sessions[0].at("127.0.0.1:3260"))
	require.True(t, sessions[0].hasOtherDevices(nil))
	require.False(t, sessions[0].hasOtherDevices(sessions[0].disks()))
	point, err := i.mountPoint("sda")
	require.NoError(t, err)
	require.Equal(t, "/mnt/a", point)

	i = loadTree(t, "two-portals").initiator()
	sessions, err = i.sessions("iqn.2026-11.test:vol2")
	require.NoError(t, err)
	for _, d := range sessions[0].disks() {
		if d.name != "" {
			require.False(t, sessions[0].hasOtherDevices([]disk{d}), "a controller counts as in use")
		}
	}
	require.False(t, i.multipathRuns())
	require.NoError(t, i.CheckDaemon())

	i = loadTree(t, "multipath").initiator()
	require.True(t, i.multipathRuns())
	require.True(t, i.claimedByMultipath("sda"))
}

func TestIdentifyTellsWhatIsNoISCSIDisk(t *testing.T) {
	m, target := attached(t)
	i := m.initiator()
	m.write("dev/nvme0n1", "")
	m.write("sys/devices/pci0000:00/nvme/nvme0/nvme0n1/dev", "259:0\n")
	m.link("sys/devices/pci0000:00/nvme/nvme0/nvme0n1/device", "../../nvme0")
	m.link("sys/class/block/nvme0n1", "../../devices/pci0000:00/nvme/nvme0/nvme0n1")
	m.write("dev/loop0", "")
	m.mkdir("sys/class/block/loop0")
	m.write("dev/dm-3", "")
	m.write("sys/class/block/dm-3/dm/uuid", "mpath-3600\n")
	m.write("dev/dm-4", "")
	m.write("sys/class/block/dm-4/dm/uuid", "LVM-abc\n")
	for name, expected := range map[string]error{
		"nvme0n1": ErrNotISCSI, "loop0": ErrNotISCSI, "dm-4": ErrNotISCSI, "sdx": fs.ErrNotExist,
	} {
		_, err := i.Identify(m.path("dev", name))
		require.ErrorIs(t, err, expected, name)
		require.ErrorContains(t, err, name)
	}
	_, err := i.Identify(m.path("dev/dm-3"))
	require.ErrorContains(t, err, "without paths")

	m.write("dev/null", "")
	_, err = i.Identify(m.path("dev/null"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	m.link("dev/disk/by-id/x", "../../sda")
	device, err := i.Identify(m.path("dev/disk/by-id/x"))
	require.NoError(t, err)
	require.Equal(t, target, device.Target)

	m.write("sys/class/block/sda/device/vpd_pg80", "")
	_, err = i.Identify(m.path("dev/sda"))
	require.ErrorContains(t, err, "serial number of sda")
}

func TestIdentifyGivesTheDiskThatWasAskedFor(t *testing.T) {
	m, _ := attached(t, portalA, portalB)
	for _, name := range []string{"sda", "sdb"} {
		device, err := m.initiator().Identify(m.path("dev", name))
		require.NoError(t, err)
		require.Equal(t, m.path("dev", name), device.Path)
		require.Len(t, device.Paths, 2)
	}
}

func TestResizeWaitsForALateArray(t *testing.T) {
	m, target := attached(t)
	i := m.initiator()
	device, found, err := i.Find(t.Context(), target)
	require.NoError(t, err)
	require.True(t, found)
	rescans := 0
	i.rescan = func(d disk) error {
		if rescans++; rescans == 3 {
			m.targets[testIQN].luns[0] = fakeLUN{testSerial, 2 * gib}
		}
		return m.rescan(d)
	}
	bytes, err := i.Resize(t.Context(), device, 2*gib)
	require.NoError(t, err)
	require.Equal(t, 2*gib, bytes)
	require.Equal(t, 3, rescans)

	bytes, err = i.Resize(t.Context(), device, 2*gib)
	require.NoError(t, err)
	require.Equal(t, 2*gib, bytes)
	require.Equal(t, 3, rescans, "rescanned although the size is there")

	_, err = i.Resize(t.Context(), device, 0)
	require.NoError(t, err)
	require.Equal(t, 4, rescans)
	require.Empty(t, m.programs())
}

func TestResizeFails(t *testing.T) {
	m, target := attached(t)
	device := Device{Path: m.path("dev/sda"), Target: target}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := m.initiator().Resize(ctx, device, 9*gib)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "has 1073741824 bytes, expected 9663676416: has the array grown the volume?")

	i := m.initiator()
	i.rescan = func(disk) error { return errFake }
	_, err = i.Resize(t.Context(), device, 9*gib)
	require.ErrorIs(t, err, errFake)

	m.mu.Lock() // a rescan that was left to itself may be at it
	m.write("sys/class/block/sda/size", "many\n")
	m.mu.Unlock()
	_, err = i.Resize(t.Context(), device, 9*gib)
	require.ErrorContains(t, err, `sysfs says "many"`)

	device.Target.Serial = "another"
	_, err = i.Resize(t.Context(), device, 9*gib)
	require.ErrorContains(t, err, "no disk of this volume")
}

func TestParseSerial(t *testing.T) {
	for _, test := range []struct {
		name, page, serial string
	}{
		{"tgt, set by hand", "\x00\x80\x00\x24" + realSerial, realSerial},
		{"tgt, blanks on the left", "\x00\x80\x00\x0c      beaf11", "beaf11"},
		{"LIO, zero on the right", "\x00\x80\x00\x07volume\x00", "volume"},
		{"blanks on the right", "\x00\x80\x00\x08vol 1   ", "vol 1"},
		{"longer than its length", "\x00\x80\x00\x03volume", "vol"},
		{"shorter than its length", "\x00\x80\x00\x30volume", "volume"},
		{"empty", "\x00\x80\x00\x00", ""},
		{"blank", "\x00\x80\x00\x04    ", ""},
		{"no header", "\x00\x80", ""},
		{"another page", "\x00\x83\x00\x03vol", ""},
		{"not text", "\x00\x80\x00\x03\x01\x02\x03", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			serial, err := parseSerial([]byte(test.page))
			require.Equal(t, test.serial, serial)
			require.Equal(t, test.serial == "", err != nil, "error: %v", err)
		})
	}
}

func FuzzParseSerial(f *testing.F) {
	f.Add([]byte("\x00\x80\x00\x24" + realSerial))
	f.Add([]byte("\x00\x80\xff\xff      beaf11"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, page []byte) {
		serial, err := parseSerial(page)
		if (err == nil) != (serial != "") {
			t.Fatalf("serial %q, error %v", serial, err)
		}
		if err == nil {
			if err := (Target{IQN: testIQN, Serial: serial}).validate(); err != nil {
				t.Fatalf("a serial that a disk has cannot be asked for: %v", err)
			}
		}
	})
}

func FuzzMountPoint(f *testing.F) {
	f.Add("26 24 8:0 / /mnt/a rw,relatime shared:9 - ext4 /dev/sda rw\n", "8:0")
	f.Add("26 24 8:0", "8:0")
	f.Fuzz(func(t *testing.T, table, number string) { mountPointOf(table, number) })
}

func TestRealKernelCalls(t *testing.T) {
	k := realKernel()
	file := t.TempDir() + "/device"
	require.ErrorIs(t, k.scan(file, "0 0 1"), fs.ErrNotExist, "a missing sysfs file must not be made")
	require.ErrorIs(t, k.flush(file), fs.ErrNotExist)
	require.ErrorIs(t, k.claim(file), fs.ErrNotExist)
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, k.claim(file))
	require.Error(t, k.flush(file), "a file is no block device")
	require.NoError(t, k.scan(file, "0 0 1"))
	d := disk{hctl: "0:0:0:0", dir: t.TempDir()}
	for name, write := range map[string]func(disk) error{"rescan": k.rescan, "delete": k.delete} {
		require.ErrorIs(t, write(d), fs.ErrNotExist, "the session's disk is gone, and no other is meant")
		require.NoError(t, os.WriteFile(filepath.Join(d.dir, name), nil, 0o600))
		require.NoError(t, write(d))
		content, err := os.ReadFile(filepath.Join(d.dir, name))
		require.NoError(t, err)
		require.Equal(t, "1", string(content), name)
	}
}
