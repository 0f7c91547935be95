package iscsi

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSessionsOfARealMachine(t *testing.T) {
	sessions, err := loadTree(t, "two-portals").initiator().Sessions()
	require.NoError(t, err)
	require.Len(t, sessions, 3)
	require.Equal(t, "[fd00::99]:3260", sessions[1].Portal)
	require.True(t, sessions[1].Up())
	require.Len(t, sessions[2].Disks, 1, "the target's controller is no disk")
	disk := sessions[0].Disks[0]
	disk.Path = disk.Path[strings.LastIndex(disk.Path, "/dev/"):]
	require.Equal(t, Disk{
		Path: "/dev/sdb", Number: "8:16", LUN: 1, Vendor: "IET", Serial: "0b5f9f3c-7c21-4a5e-9d0c-6f1f1a2b3c4d", State: "running", Bytes: 64 << 20,
	}, disk)
}

func TestSessionsShowWhatStandsOnADisk(t *testing.T) {
	m := loadTree(t, "multipath")
	sessions, err := m.initiator().Sessions()
	require.NoError(t, err)
	require.NotEmpty(t, sessions)
	for _, s := range sessions {
		for _, d := range s.Disks {
			require.Len(t, d.Layers, 1, d.Path)
			require.True(t, d.Layers[0].Multipath)
			require.Equal(t, m.path("dev/dm-0"), d.Layers[0].Path)
		}
	}
	m.link("sys/class/block/dm-0/holders/dm-7", m.path("sys/class/block/dm-7"))
	sessions, err = m.initiator().Sessions()
	require.NoError(t, err)
	layers := sessions[0].Disks[0].Layers
	require.Len(t, layers, 2, "what stands on the map is not seen")
	require.False(t, layers[1].Multipath)
}

func TestSessionsWithoutModulesAndInEveryState(t *testing.T) {
	m := newMachine(t)
	m.addSession(testIQN, portalA, "FAILED")
	sessions, err := m.initiator().Sessions()
	require.NoError(t, err)
	require.Equal(t, []Session{{ID: 11, IQN: testIQN, Portal: portalA, State: "FAILED"}}, sessions)
	require.False(t, sessions[0].Up())

	m.remove("sys/class/iscsi_session")
	sessions, err = m.initiator().Sessions()
	require.NoError(t, err)
	require.Empty(t, sessions)
}

// realRecord is as this package and iscsiadm 2.1.8 made it.
func realRecord(t *testing.T) string {
	content, err := os.ReadFile("testdata/record.txt")
	require.NoError(t, err)
	return string(content)
}

func TestRecords(t *testing.T) {
	m := newMachine(t)
	real := realRecord(t)
	m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", real)
	m.write("etc/iscsi/nodes/"+testIQN+"/10.0.1.1,3260,1/default", strings.Replace(real, "node.startup = manual", "node.startup = automatic", 1))
	m.write("var/lib/iscsi/nodes/iqn.2026-11.test:foreign/fd00::99,3260", "")
	m.write("etc/iscsi/nodes/"+testIQN+"/README", real)
	m.write("etc/iscsi/nodes/lost+found/10.0.0.1,3260", real)
	i := New(m, Options{EtcRoot: m.path("etc"), VarRoot: m.path("var")})
	records, err := i.Records()
	require.NoError(t, err)
	require.Len(t, records, 3, "what is no record was taken for one, or the reverse")
	for n := range records {
		require.WithinDuration(t, time.Now(), records[n].Changed, time.Minute)
		records[n].Path, records[n].Changed = strings.TrimPrefix(records[n].Path, m.root), time.Time{}
	}
	require.Equal(t, []Record{
		{IQN: testIQN, Portal: portalA, Path: "/etc/iscsi/nodes/" + testIQN + "/10.0.0.1,3260", Startup: "manual", Own: true},
		{IQN: testIQN, Portal: portalB, Path: "/etc/iscsi/nodes/" + testIQN + "/10.0.1.1,3260,1/default", Startup: "automatic"},
		{IQN: "iqn.2026-11.test:foreign", Portal: "[fd00::99]:3260", Path: "/var/lib/iscsi/nodes/iqn.2026-11.test:foreign/fd00::99,3260", Empty: true},
	}, records)
}

// A record that another program wrote differs somewhere in what this package always writes.
func TestRecordIsOwnOnlyAsWritten(t *testing.T) {
	i := New(nil, Options{ReplacementTimeout: 5 * time.Second})
	real := realRecord(t)
	require.True(t, i.wrote(recordSettings(real)))
	withCHAP := real + "node.session.auth.authmethod = CHAP\nnode.session.auth.username = u\n"
	require.True(t, i.wrote(recordSettings(withCHAP)), "secrets and time-outs are the configuration's")
	for _, changed := range []string{"node.startup = automatic", "node.session.scan = auto", "node.session.initial_login_retry_max = 8", "node.conn[0].timeo.login_timeout = 15"} {
		require.False(t, i.wrote(recordSettings(real+changed+"\n")), changed)
	}
	require.False(t, i.wrote(recordSettings("")))
}

func TestDeleteRecords(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	require.NoError(t, i.DeleteRecords(t.Context(), testIQN))
	require.Empty(t, m.programs(), "a program was started for nothing")

	target, _ := m.oneVolume()
	_, err := i.Attach(t.Context(), target, CHAP{})
	require.NoError(t, err)
	m.programs()
	require.ErrorIs(t, i.DeleteRecords(t.Context(), testIQN), ErrInUse)
	require.Empty(t, m.programs())

	m.logoutSession(m.sessionAt(testIQN, portalA), "")
	require.NoError(t, i.DeleteRecords(t.Context(), testIQN))
	m.nothingLeft()

	m.write("etc/iscsi/nodes/"+testIQN+"/10.0.0.1,3260", "")
	require.NoError(t, i.DeleteRecords(t.Context(), testIQN))
	m.nothingLeft()
	require.ErrorContains(t, i.DeleteRecords(t.Context(), "../x"), "no iSCSI name")
}

func TestStaleLock(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	_, stale := i.StaleLock()
	require.False(t, stale, "there is no lock")
	m.write("run/lock/iscsi/lock.write", "")
	require.Eventually(t, func() bool { _, stale = i.StaleLock(); return stale }, time.Second, time.Millisecond)
	m.write("proc/77/stat", "77 (iscsiadm) S 1 77\n")
	_, stale = i.StaleLock()
	require.False(t, stale, "it is the lock of an iscsiadm that works")
	require.NoError(t, i.BreakStaleLock(t.Context()))
	require.FileExists(t, m.path("run/lock/iscsi/lock.write"))
	m.remove("proc/77")
	require.NoError(t, i.BreakStaleLock(t.Context()))
	require.NoFileExists(t, m.path("run/lock/iscsi/lock.write"))
}

func TestVersions(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	m.fault = func(_ context.Context, program string, args []string) (string, bool) {
		require.Equal(t, []string{"--version"}, args)
		if program == "iscsiadm" {
			return "version-client", true
		}
		return "version-daemon", true
	}
	versions, err := i.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, Versions{Client: "2.1.8", Daemon: "2.1.8"}, versions)
	require.Equal(t, []string{"iscsiadm --version", "iscsid --version"}, m.programs(), "nothing runs, so the one on disk is asked")

	require.False(t, i.DaemonRuns())
	m.write("proc/95/stat", "95 (iscsid) S 1 95\n")
	require.True(t, i.DaemonRuns())
	m.link("proc/95/exe", "/sbin/iscsid (deleted)")
	versions, err = i.Versions(t.Context())
	require.NoError(t, err)
	require.True(t, versions.Replaced)
	require.Equal(t, m.path("proc/95/exe")+" --version", m.programs()[1], "not the process that runs was asked")

	m.fault = func(context.Context, string, []string) (string, bool) { return "login-no-daemon", true }
	_, err = i.Versions(t.Context())
	require.ErrorContains(t, err, "ask the version of open-iscsi")
	m.fault = func(context.Context, string, []string) (string, bool) { return "new", true }
	_, err = i.Versions(t.Context())
	require.ErrorContains(t, err, "holds no version")
}

func TestReach(t *testing.T) {
	m := newMachine(t)
	m.oneVolume(portalA)
	i := m.initiator()
	require.NoError(t, i.Reach(t.Context(), portalA))
	require.ErrorIs(t, i.Reach(t.Context(), portalB), ErrUnreachable)
	require.ErrorContains(t, i.Reach(t.Context(), "10.0.0.1"), "host:port")
	i.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errFake }
	require.True(t, errors.Is(i.Reach(t.Context(), portalA), errFake))
}

func TestClaimedByMultipathWithoutAMap(t *testing.T) {
	m := loadTree(t, "two-portals")
	i := m.initiator()
	found, err := i.Multipath("IET", "VIRTUAL-DISK")
	require.NoError(t, err)
	require.Equal(t, Multipath{}, found)
	m.write("run/udev/data/b8:16", "E:DM_MULTIPATH_DEVICE_PATH=1\n")
	found, err = i.Multipath("IET", "VIRTUAL-DISK")
	require.NoError(t, err)
	require.Equal(t, []string{m.path("dev/sdb")}, found.Claimed)
	found, err = i.Multipath("DATERA", "IBLOCK")
	require.NoError(t, err)
	require.Empty(t, found.Claimed, "another vendor's disk")

	m = loadTree(t, "multipath")
	found, err = m.initiator().Multipath("IET", "VIRTUAL-DISK")
	require.NoError(t, err)
	require.Empty(t, found.Claimed, "they have their map")
}

func TestMultipathConfiguration(t *testing.T) {
	// As the vendor's guide has it (docs.openstack.org, Datera drivers).
	const vendors = `
defaults {
	checker_timer 5
}
devices {
	device {
		vendor "DATERA"
		product "IBLOCK"
		path_grouping_policy group_by_prio
		prio alua
		failback 5
	}
}
blacklist {
	device {
		vendor ".*"
		product ".*"
	}
}
blacklist_exceptions {
	device {
		vendor "DATERA.*"
		product "IBLOCK.*"
	}
}
`
	for _, test := range []struct {
		name, config string
		want         Multipath
	}{
		{"the vendor's guide", vendors, Multipath{Section: true}},
		{"the vendor's guide, without the exceptions", vendors[:strings.Index(vendors, "blacklist_exceptions")], Multipath{Section: true, Blacklist: true}},
		{"nothing", "", Multipath{}},
		{"comments", "# devices { device { vendor \"DATERA\"\n! blacklist {\n", Multipath{}},
		{"all names", "blacklist {\n devnode \"^sd[a-z0-9]+\"\n}\n", Multipath{Blacklist: true}},
		{"other names", "blacklist {\n devnode \"^(ram|loop|vd)\" # virtual\n}\n", Multipath{}},
		{"all but some names", "blacklist {\n devnode \"!^(nvme|dasd)\"\n}\n", Multipath{Blacklist: true}},
		{"every WWID", "blacklist {\n wwid *\n}\n", Multipath{Blacklist: true}},
		{"every WWID, and a device exception, which is of another kind", "blacklist {\n wwid .*\n}\nblacklist_exceptions {\n device {\n vendor DATERA\n }\n}\n", Multipath{Blacklist: true}},
		{"iSCSI", "blacklist {\n protocol \"scsi:iscsi\"\n}\n", Multipath{Blacklist: true}},
		{"another vendor's disks", "blacklist {\n device {\n vendor LIO-ORG\n product IBLOCK\n }\n}\n", Multipath{}},
		{"another vendor's section", "devices {\n device {\n vendor LIO-ORG\n product .*\n no_path_retry queue\n }\n}\n", Multipath{}},
		{"a section for everybody", "devices{\n device{\n vendor .*\n no_path_retry queue\n}\n}\n", Multipath{Section: true, Queues: true}},
		{"queueing by default", "defaults {\n no_path_retry queue\n}\n", Multipath{Queues: true}},
		{"queueing by default, but not here", "defaults {\n no_path_retry queue\n}\ndevices {\n device {\n vendor DATERA\n product IBLOCK\n no_path_retry 24\n }\n}\n", Multipath{Section: true}},
		{"queueing as a feature", "devices {\n device {\n vendor DATERA\n features \"1 queue_if_no_path\"\n }\n}\n", Multipath{Section: true, Queues: true}},
		{"queueing by order", "devices {\n device {\n vendor DATERA\n no_path_retry 3\n }\n}\noverrides {\n no_path_retry queue\n}\n", Multipath{Section: true, Queues: true}},
		{"an unfinished file", "devices {\n device {\n vendor DATERA", Multipath{Section: true}},
		{"a bad expression", "blacklist {\n devnode \"[\"\n}\n", Multipath{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.write("etc/multipath.conf", test.config)
			m.write("proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n0: 2 0 0 1 1 7 @/org/kernel/linux/storage/multipathd\n")
			found, err := m.initiator().Multipath("DATERA", "IBLOCK")
			require.NoError(t, err)
			test.want.Runs, test.want.Configs = true, []string{m.path("etc/multipath.conf")}
			require.Equal(t, test.want, found)
		})
	}
	m := newMachine(t)
	m.write("etc/multipath/conf.d/datera.conf", vendors)
	found, err := m.initiator().Multipath("DATERA", "IBLOCK")
	require.NoError(t, err)
	require.True(t, found.Section, "a file of conf.d was not read")
	require.False(t, found.Runs)
	m.mkdir("etc/multipath.conf")
	_, err = m.initiator().Multipath("DATERA", "IBLOCK")
	require.Error(t, err)
}

func FuzzMultipathConf(f *testing.F) {
	f.Add("devices {\n device {\n vendor \"DATERA\"\n}\n}\nblacklist { devnode \"^sd\"\n}\n")
	f.Add("}}}{{\"\"!#\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		conf := parseMultipathConf(text)
		conf.blacklists("DATERA", "IBLOCK")
		section, _ := conf.deviceSection("DATERA", "IBLOCK")
		if section && !slices.ContainsFunc(strings.Fields(text), func(word string) bool { return strings.Contains(word, "vendor") }) {
			t.Fatalf("a section without a vendor was found in %q", text)
		}
	})
}
