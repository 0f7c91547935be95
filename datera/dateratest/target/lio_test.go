package target

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	prefix = "iqn.2013-05.com.daterainc:tc:01:sn:0000002a"
	iqn    = prefix + "00000001"
	node1  = "iqn.1993-08.org.debian:01:node1"
	node2  = "iqn.1993-08.org.debian:01:node2"
	tpg1   = "iscsi/" + iqn + "/tpgt_1"
	tpg2   = "iscsi/" + iqn + "/tpgt_2"
)

func newFakeLIO(t *testing.T) (*LIO, *fakeTree, *fakeLoops) {
	t.Helper()
	tree, devices := newFakeTree(), &fakeLoops{files: map[string]string{}, sizes: map[string]int64{}}
	l := &LIO{tree: tree, loops: devices, load: func(context.Context) error { return nil },
		listen: func(netip.AddrPort) error { return nil }, serves: map[string][]string{}}
	require.NoError(t, l.Open(t.Context(), "/state", prefix, nil))
	tree.log = nil
	return l, tree, devices
}

func wanted(change func(*Target)) Target {
	t := Target{IQN: iqn, Portals: []Portal{{Address: netip.MustParseAddrPort("10.0.0.1:3260")}, {Address: netip.MustParseAddrPort("10.0.1.1:3260")}},
		LUNs: []LUN{{Serial: "uuid-1", File: "/state/volumes/uuid-1", Size: 1 << 30}}, Initiators: []string{node1}}
	if change != nil {
		change(&t)
	}
	return t
}

// both gives the sequence for the two portal groups.
func both(sequence ...string) []string {
	var all []string
	for _, g := range []string{tpg1, tpg2} {
		for _, s := range sequence {
			all = append(all, strings.ReplaceAll(s, "TPG", g))
		}
	}
	return all
}

func TestLIOSequences(t *testing.T) {
	for _, step := range []struct {
		name   string
		change func(*Target)
		want   []string
	}{
		{"nothing new", nil, nil},
		{"host added", func(t *Target) { t.Initiators = []string{node1, node2} }, both("mkdir TPG/acls/"+node2,
			"mkdir TPG/acls/"+node2+"/lun_0", "link TPG/acls/"+node2+"/lun_0/lun")},
		{"host removed", func(t *Target) { t.Initiators = nil }, both("rm TPG/acls/"+node1+"/lun_0/lun", "rmdir TPG/acls/"+node1+"/lun_0",
			"rmdir TPG/acls/"+node1)},
		{"CHAP", func(t *Target) { t.Auth = Auth{User: "u", Password: "p"} }, both("write TPG/attrib/authentication=1",
			"write TPG/acls/"+node1+"/auth/userid=u", "write TPG/acls/"+node1+"/auth/password=p")},
		{"everybody", func(t *Target) { t.AllowAll, t.Auth = true, Auth{User: "u", Password: "p"} }, both("write TPG/attrib/authentication=1",
			"write TPG/attrib/generate_node_acls=1", "write TPG/attrib/cache_dynamic_acls=1", "write TPG/auth/userid=u", "write TPG/auth/password=p",
			"rm TPG/acls/"+node1+"/lun_0/lun", "rmdir TPG/acls/"+node1+"/lun_0", "rmdir TPG/acls/"+node1)},
		{"portal down", func(t *Target) { t.Portals[1].Down = true }, []string{"write " + tpg2 + "/enable=0", "rmdir " + tpg2 + "/np/10.0.1.1:3260"}},
		{"portal moved", func(t *Target) { t.Portals[0].Address = netip.MustParseAddrPort("10.0.0.9:3260") },
			[]string{"rmdir " + tpg1 + "/np/10.0.0.1:3260", "mkdir " + tpg1 + "/np/10.0.0.9:3260"}},
		{"portal gone", func(t *Target) { t.Portals = t.Portals[:1] }, []string{"write " + tpg2 + "/enable=0",
			"rm " + tpg2 + "/acls/" + node1 + "/lun_0/lun", "rmdir " + tpg2 + "/acls/" + node1 + "/lun_0", "rmdir " + tpg2 + "/acls/" + node1,
			"rm " + tpg2 + "/lun/lun_0/uuid-1", "rmdir " + tpg2 + "/lun/lun_0", "rmdir " + tpg2 + "/np/10.0.1.1:3260", "rmdir " + tpg2}},
		{"grown", func(t *Target) { t.LUNs[0].Size = 2 << 30 }, nil},
		{"another volume", func(t *Target) { t.LUNs = []LUN{{Serial: "uuid-2", File: "/state/volumes/uuid-2", Size: 1 << 30}} }, append(append(
			store("uuid-2", "/dev/loop1"), both("rm TPG/acls/"+node1+"/lun_0/lun", "rmdir TPG/acls/"+node1+"/lun_0", "rm TPG/lun/lun_0/uuid-1",
				"rmdir TPG/lun/lun_0", "mkdir TPG/lun/lun_0", "link TPG/lun/lun_0/uuid-2", "mkdir TPG/acls/"+node1+"/lun_0",
				"link TPG/acls/"+node1+"/lun_0/lun")...), "rmdir core/iblock_42/uuid-1")},
		{"no volume", func(t *Target) { t.LUNs = nil }, append(both("rm TPG/acls/"+node1+"/lun_0/lun", "rmdir TPG/acls/"+node1+"/lun_0",
			"rm TPG/lun/lun_0/uuid-1", "rmdir TPG/lun/lun_0"), "rmdir core/iblock_42/uuid-1")},
	} {
		t.Run(step.name, func(t *testing.T) {
			l, tree, devices := newFakeLIO(t)
			require.NoError(t, l.Apply(t.Context(), wanted(nil)))
			tree.log = nil
			next := wanted(step.change)
			require.NoError(t, l.Apply(t.Context(), next))
			require.Equal(t, step.want, tree.log)
			for _, lun := range next.LUNs {
				require.Equal(t, lun.Size, devices.Size(tree.Read("core/iblock_42/"+lun.Serial+"/udev_path")))
			}
			tree.log = nil
			require.NoError(t, l.Apply(t.Context(), next))
			require.Empty(t, tree.log, "a second time changes nothing")
			require.NoError(t, l.Apply(t.Context(), wanted(nil)), "and back")
			require.Equal(t, "1", tree.Read(tpg1+"/enable"))
			require.Equal(t, "1", tree.Read(tpg2+"/enable"))
			require.Equal(t, []string{node1}, tree.Folders(tpg2+"/acls"))
			require.NoError(t, l.Close(t.Context()))
			require.Empty(t, tree.Folders("iscsi"))
			require.Empty(t, tree.Folders("core"))
			require.Empty(t, tree.links)
			require.Empty(t, devices.files)
		})
	}
}

func store(serial, device string) []string {
	at := "core/iblock_42/" + serial
	return []string{"mkdir " + at, "write " + at + "/control=udev_path=" + device, "write " + at + "/udev_path=" + device,
		"write " + at + "/wwn/vendor_id=DATERA", "write " + at + "/wwn/product_id=IBLOCK", "write " + at + "/wwn/revision=4.0",
		"write " + at + "/wwn/vpd_unit_serial=" + serial, "write " + at + "/enable=1", "write " + at + "/attrib/emulate_tpu=1"}
}

func TestLIOFirstTime(t *testing.T) {
	l, tree, devices := newFakeLIO(t)
	require.NoError(t, l.Apply(t.Context(), wanted(nil)))
	require.Equal(t, append(append(store("uuid-1", "/dev/loop0"), "mkdir iscsi/"+iqn), both("mkdir TPG", "write TPG/attrib/authentication=0",
		"write TPG/attrib/generate_node_acls=0", "write TPG/attrib/cache_dynamic_acls=0", "write TPG/attrib/demo_mode_write_protect=0",
		"mkdir TPG/lun/lun_0", "link TPG/lun/lun_0/uuid-1", "mkdir TPG/acls/"+node1, "mkdir TPG/acls/"+node1+"/lun_0",
		"link TPG/acls/"+node1+"/lun_0/lun", "mkdir TPG/np/PORTAL", "write TPG/enable=1")...),
		portalNames(tree.log), "the identity comes before enable, and a group is enabled when all is in place")
	require.Equal(t, map[string]string{"/dev/loop0": "/state/volumes/uuid-1"}, devices.files)
	require.Equal(t, "lio", l.Name())
	require.Zero(t, l.FirstLUN())
}

func portalNames(log []string) []string {
	for i, entry := range log {
		if at := strings.Index(entry, "/np/"); at >= 0 {
			log[i] = entry[:at] + "/np/PORTAL"
		}
	}
	return log
}

func TestLIONoMoreDemoMode(t *testing.T) {
	l, tree, _ := newFakeLIO(t)
	require.NoError(t, l.Apply(t.Context(), wanted(func(t *Target) { t.AllowAll = true })))
	tree.log = nil
	require.NoError(t, l.Apply(t.Context(), wanted(nil)))
	require.Equal(t, "write "+tpg1+"/enable=0", tree.log[0], "ends the sessions of hosts that have no ACL")
}

func TestLIOSessions(t *testing.T) {
	l, tree, _ := newFakeLIO(t)
	require.NoError(t, l.Apply(t.Context(), wanted(func(t *Target) { t.Initiators = []string{node1, node2} })))
	tree.values[tpg1+"/acls/"+node1+"/info"] = "InitiatorName: " + node1 + "\nLIO Session ID: 1   ISID: 0x00 02 3d 01 00 00"
	tree.values[tpg2+"/acls/"+node1+"/info"] = tree.values[tpg1+"/acls/"+node1+"/info"]
	tree.values[tpg1+"/acls/"+node2+"/info"] = "No active iSCSI Session for Initiator Endpoint: " + node2
	tree.values[tpg2+"/dynamic_sessions"] = "iqn.1993-08.org.debian:01:guest\n\x00"
	sessions, err := l.Sessions(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string][]string{iqn: {"iqn.1993-08.org.debian:01:guest", node1}}, sessions)
}

func TestLIOLeftovers(t *testing.T) {
	l, tree, devices := newFakeLIO(t)
	require.NoError(t, l.Apply(t.Context(), wanted(nil)))
	stranger := "iscsi/iqn.2000-01.x:other"
	require.NoError(t, tree.Mkdir(stranger))
	require.NoError(t, tree.Mkdir("core/iblock_7"))
	devices.files["/dev/loop8"], devices.files["/dev/loop9"] = "/state/volumes/lost", "/elsewhere/file"

	again := &LIO{tree: tree, loops: devices, load: l.load, listen: l.listen, serves: map[string][]string{}}
	require.NoError(t, again.Open(t.Context(), "/state", prefix, nil))
	require.Equal(t, []string{path.Base(stranger)}, tree.Folders("iscsi"), "only its own")
	require.Equal(t, []string{"iblock_42", "iblock_7"}, tree.Folders("core"))
	require.Equal(t, map[string]string{"/dev/loop9": "/elsewhere/file"}, devices.files)
	require.NoError(t, again.Remove(t.Context(), iqn), "what is not there is removed")
}

func TestLIOFailures(t *testing.T) {
	for refuse, says := range map[string]string{
		"write core/iblock_42/uuid-1/enable":              "volume uuid-1: write enable",
		"mkdir core/iblock_42/uuid-1":                     "volume uuid-1: mkdir",
		"mkdir iscsi/" + iqn:                              "iSCSI target " + iqn,
		"mkdir " + tpg1 + "/np/":                          "portal 10.0.0.1:3260: listen on it",
		"mkdir " + tpg1 + "/acls/" + node1 + "/lun_0":     "let " + node1 + " in",
		"link " + tpg2 + "/lun/lun_0":                     "portal 10.0.1.1:3260: export volume uuid-1",
		"write " + tpg2 + "/attrib/authentication":        "write attrib/authentication",
		"link " + tpg1 + "/acls/" + node1 + "/lun_0/lun":  "let " + node1 + " in",
		"mkdir " + tpg2:                                   "portal 10.0.1.1:3260: mkdir",
		"write " + tpg1 + "/acls/" + node1 + "/auth/user": "let " + node1 + " in",
		"write " + tpg2 + "/enable=1":                     "write enable",
	} {
		t.Run(refuse, func(t *testing.T) {
			l, tree, devices := newFakeLIO(t)
			tree.refuse = refuse
			next := wanted(func(t *Target) { t.Auth = Auth{User: "u", Password: "p"} })
			if strings.Contains(refuse, "authentication") {
				next.Auth = Auth{}
			}
			require.ErrorContains(t, l.Apply(t.Context(), next), says)
			tree.refuse = ""
			require.NoError(t, l.Apply(t.Context(), next), "the next time finishes what was begun")
			require.Equal(t, "1", tree.Read(tpg2+"/enable"))
			require.Len(t, devices.files, 1)
		})
	}
}

func TestLIODoesNotOpen(t *testing.T) {
	nothing := func(context.Context) error { return nil }
	l := &LIO{tree: newFakeTree(), load: func(context.Context) error { return errors.New("no modules") }}
	require.ErrorContains(t, l.Open(t.Context(), "/state", prefix, nil), "no modules")
	require.NoError(t, l.Close(t.Context()), "nothing was made")
	l = &LIO{tree: newFakeTree(), load: nothing, loops: &fakeLoops{}}
	require.ErrorContains(t, l.Open(t.Context(), "/state", "iqn.x:not-hex", nil), "hexadecimal")
	busy, err := netip.ParseAddrPort(occupied(t))
	require.NoError(t, err)
	l.listen = canListen
	require.ErrorContains(t, l.Open(t.Context(), "/state", prefix, []netip.AddrPort{busy}), "address already in use; stop the other")
	require.NoError(t, canListen(netip.MustParseAddrPort("127.0.0.1:0")))
	l, _, devices := newFakeLIO(t)
	devices.fail = errors.New("no loop devices")
	require.ErrorContains(t, l.Apply(t.Context(), wanted(nil)), "no loop devices")
}

func TestConfigFS(t *testing.T) {
	c := configFS{t.TempDir()}
	require.NoError(t, c.Mkdir("a"))
	require.NoError(t, c.Mkdir("a"))
	require.Error(t, c.Mkdir("b/c"))
	require.NoError(t, c.Mkdir("a/inner"))
	require.NoError(t, c.Link("a", "a/link"))
	require.NoError(t, c.Link("a", "a/link"))
	require.Error(t, c.Link("a", "b/link"))
	require.Equal(t, "a", c.Linked("a/link"))
	require.Empty(t, c.Linked("a/none"))
	require.Error(t, c.Write("a/value", "1"), "attributes are not made by writing")
	require.NoError(t, os.WriteFile(filepath.Join(c.root, "a/value"), []byte(" 12\n"), 0o600))
	require.NoError(t, c.Write("a/value", "5"))
	require.Equal(t, "512", c.Read("a/value"), "one write, no truncation")
	require.Empty(t, c.Read("a/none"))
	require.Equal(t, []string{"inner"}, c.Folders("a"))
	require.Equal(t, []string{"link"}, c.Links("a"))
	require.Empty(t, c.Folders("none"))
	require.Error(t, c.Remove("a"))
	for _, p := range []string{"a/link", "a/inner", "a/value", "a", "a"} {
		require.NoError(t, c.Remove(p))
	}
}

func TestLoopDevices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	_, err := loops{}.Attach(file)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Error(t, loops{}.Detach("/dev/no-such-loop"))
	require.Zero(t, loops{}.Size("/dev/no-such-loop"))
	if control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("no loop devices here: %v", err)
	} else {
		require.NoError(t, control.Close())
	}
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, 1<<20))
	device, err := loops{}.Attach(file)
	require.NoError(t, err)
	defer func() { _ = loops{}.Detach(device) }()
	require.EqualValues(t, 1<<20, loops{}.Size(device))
	require.Equal(t, []string{device}, loops{}.Of(filepath.Dir(file)))
	require.NoError(t, os.Truncate(file, 2<<20))
	require.NoError(t, loops{}.Fit(device))
	require.EqualValues(t, 2<<20, loops{}.Size(device))
	require.NoError(t, loops{}.Detach(device))
	require.NoError(t, loops{}.Detach(device), "a free one is no error")
	require.Empty(t, loops{}.Of(filepath.Dir(file)))
}
