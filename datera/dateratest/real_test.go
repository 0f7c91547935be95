package dateratest_test

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/datera/dateratest/target"
)

// TestRealDataPath logs in with the real open-iscsi to the real target. It needs root, a kernel with an iSCSI
// initiator, a running iscsid, and DATERA_TEST_TARGET=lio or tgt; a throw-away virtual machine has all that.
func TestRealDataPath(t *testing.T) {
	var backend target.Backend
	switch os.Getenv("DATERA_TEST_TARGET") {
	case "lio":
		backend = target.NewLIO()
	case "tgt":
		backend = target.NewTGT()
	default:
		t.Skip("DATERA_TEST_TARGET is neither lio nor tgt")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	array, err := dateratest.New(dateratest.Options{Backend: backend, StateDir: dir,
		Portals: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3260"), netip.MustParseAddrPort("127.0.0.2:3260")}})
	require.NoError(t, err)
	closed := false
	shut := func() {
		if !closed {
			closed = true
			require.NoError(t, array.Close(context.Background()))
		}
	}
	defer shut()
	require.NoError(t, array.Listen("127.0.0.1:0", nil))
	c := connect(t, array)
	h := &host{t: t, lun: backend.FirstLUN(), iqn: ownIQN(t)}
	c.ok("POST", "/initiators", js{"id": h.iqn, "name": "this-host"})
	created := c.ok("POST", "/app_instances", simple("pv-1", 1))
	iqn := at(t, created, "storage_instances", 0, "access", "iqn").(string)
	volume := at(t, created, "storage_instances", 0, "volumes", 0).(js)
	serial := volume["uuid"].(string)
	if h.lun == 0 {
		require.NotContains(t, volume, "lun", "a real array does not name LUN 0")
	} else {
		require.EqualValues(t, h.lun, volume["lun"])
	}
	defer h.forget(iqn)

	t.Log("nobody in the ACL")
	h.record(iqn)
	h.refused(iqn, "127.0.0.1")

	t.Log("in the ACL")
	c.ok("PUT", si+"/acl_policy/initiators", js{"path": "/initiators/" + h.iqn, "op": "add"})
	h.login(iqn, "127.0.0.1")
	h.login(iqn, "127.0.0.2")
	disks := h.disks(iqn, 2)
	for _, d := range disks {
		require.Equal(t, "DATERA", attribute(t, d, "device/vendor"))
		require.Equal(t, "IBLOCK", attribute(t, d, "device/model"))
		page, err := os.ReadFile("/sys/block/" + d + "/device/vpd_pg80")
		require.NoError(t, err)
		require.Equal(t, serial, strings.TrimRight(string(page[4:]), "\x00 "), "the initiator sees the volume's uuid as serial")
		require.Equal(t, int64(1)<<30, sizeOf(t, d))
	}
	require.Equal(t, []any{h.iqn}, c.ok("GET", si, nil)["active_initiators"])
	require.EqualValues(t, 0, c.ok("GET", vol, nil)["capacity_in_use"], "nothing was ever written")
	c.fails(400, "InvalidRequestError", "PUT", "/app_instances/pv-1", js{"admin_state": "offline"})

	t.Log("content")
	first := h.write(disks[0], 64<<20, 3<<20)
	require.Equal(t, first, h.read(disks[1], 64<<20, 3<<20), "both paths lead to the same volume")
	require.EqualValues(t, 1, c.ok("GET", vol, nil)["capacity_in_use"])

	t.Log("resize while it is in use")
	c.ok("PUT", vol, js{"size": 2})
	h.rescan(iqn)
	for _, d := range disks {
		h.eventually("new size", func() bool { return sizeOf(t, d) == 2<<30 })
	}
	last := h.write(disks[0], 2<<30-1<<20, 1<<20)
	require.Equal(t, last, h.read(disks[1], 2<<30-1<<20, 1<<20), "the end of the grown volume")
	require.Equal(t, first, h.read(disks[0], 64<<20, 3<<20), "the old content is untouched")

	t.Log("snapshot and clones")
	stamp := c.ok("POST", vol+"/snapshots", js{})["utc_ts"].(string)
	h.eventually("snapshot", func() bool { return c.ok("GET", vol+"/snapshots/"+stamp, nil)["op_state"] == "available" })
	second := h.write(disks[0], 64<<20, 3<<20)
	for name, source := range map[string]js{
		"clone-of-snapshot": {"clone_snapshot_src": js{"path": vol + "/snapshots/" + stamp}},
		"clone-of-volume":   {"clone_volume_src": js{"path": vol}}} {
		source["name"] = name
		twin := c.ok("POST", "/app_instances", source)
		twinIQN := at(t, twin, "storage_instances", 0, "access", "iqn").(string)
		c.ok("PUT", "/app_instances/"+name+"/storage_instances/storage-1/acl_policy/initiators", js{"path": "/initiators/" + h.iqn, "op": "add"})
		h.eventually(name, func() bool {
			return c.ok("GET", "/app_instances/"+name+"/storage_instances/storage-1", nil)["op_state"] == "available"
		})
		h.record(twinIQN)
		h.login(twinIQN, "127.0.0.1")
		want := map[string][]byte{"clone-of-snapshot": first, "clone-of-volume": second}[name]
		require.True(t, bytes.Equal(want, h.read(h.disks(twinIQN, 1)[0], 64<<20, 3<<20)), "content of %s", name)
		require.Equal(t, last, h.read(h.disks(twinIQN, 1)[0], 2<<30-1<<20, 1<<20))
		h.forget(twinIQN)
		c.ok("PUT", "/app_instances/"+name, js{"admin_state": "offline", "force": true})
		c.ok("DELETE", "/app_instances/"+name, nil)
	}

	t.Log("discard gives space back")
	h.run("blkdiscard", "/dev/"+disks[0])
	require.EqualValues(t, 0, c.ok("GET", vol, nil)["capacity_in_use"])
	h.write(disks[0], 0, 1<<20)

	t.Log("portal down and up")
	require.NoError(t, array.SetFault(dateratest.Fault{Name: dateratest.PortalDown, Value: "127.0.0.2"}))
	h.eventually("the session through 127.0.0.2 fails", func() bool { return h.states(iqn)["127.0.0.2"] != "LOGGED_IN" })
	h.eventually("the session through 127.0.0.1 stands", func() bool { return h.states(iqn)["127.0.0.1"] == "LOGGED_IN" })
	_, err = tcp("127.0.0.2:3260")
	require.ErrorIs(t, err, unix.ECONNREFUSED)
	array.ClearFaults()
	h.eventually("it comes back", func() bool { return h.states(iqn)["127.0.0.2"] == "LOGGED_IN" })

	t.Log("the fence: out of the ACL, the sessions have ended when the answer comes")
	writing := h.writeOn(disks[0])
	c.ok("PUT", si+"/acl_policy/initiators", js{"path": "/initiators/" + h.iqn, "op": "remove"})
	fenced := head(t, filepath.Join(dir, "volumes", serial))
	require.Error(t, <-writing, "a host that writes all the time is cut off")
	require.True(t, bytes.Equal(fenced, head(t, filepath.Join(dir, "volumes", serial))), "nothing reached the volume after the answer")
	require.Empty(t, c.ok("GET", si, nil)["active_initiators"])
	before := head(t, filepath.Join(dir, "volumes", serial))
	require.Error(t, h.tryWrite(disks[0], 0, make([]byte, 4096)), "a fenced host cannot write")
	require.True(t, bytes.Equal(before, head(t, filepath.Join(dir, "volumes", serial))), "nothing reached the volume")
	h.logout(iqn)
	h.refused(iqn, "127.0.0.1")

	t.Log("and back in")
	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + h.iqn}}})
	h.login(iqn, "127.0.0.1")
	h.disks(iqn, 1)

	t.Log("offline drops the session, online lets it come back")
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	h.eventually("no session", func() bool { return h.states(iqn)["127.0.0.1"] != "LOGGED_IN" })
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
	h.eventually("session", func() bool { return h.states(iqn)["127.0.0.1"] == "LOGGED_IN" })
	h.logout(iqn)

	t.Log("CHAP")
	c.ok("PUT", si+"/auth", js{"type": "chap", "target_user_name": "host-user", "target_pswd": "host-secret-1"})
	h.refused(iqn, "127.0.0.1")
	h.set(iqn, "node.session.auth.authmethod", "CHAP")
	h.set(iqn, "node.session.auth.username", "host-user")
	h.set(iqn, "node.session.auth.password", "wrong-secret-1")
	h.refused(iqn, "127.0.0.1")
	h.set(iqn, "node.session.auth.password", "host-secret-1")
	h.login(iqn, "127.0.0.1")
	h.logout(iqn)
	c.ok("PUT", si+"/auth", js{"type": "mchap", "target_user_name": "host-user", "target_pswd": "host-secret-1",
		"initiator_user_name": "array-user", "initiator_pswd": "array-secret-1"})
	h.set(iqn, "node.session.auth.username_in", "array-user")
	h.set(iqn, "node.session.auth.password_in", "wrong-secret-2")
	h.refused(iqn, "127.0.0.1")
	h.set(iqn, "node.session.auth.password_in", "array-secret-1")
	h.login(iqn, "127.0.0.1")
	h.logout(iqn)
	c.ok("PUT", si+"/auth", js{"type": "none"})
	h.forget(iqn) // open-iscsi offers CHAP as long as its record has a user
	h.record(iqn)
	h.login(iqn, "127.0.0.1")
	h.logout(iqn)

	t.Log("restore the snapshot in place")
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	c.ok("PUT", vol, js{"restore_point": stamp})
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
	h.eventually("restored", func() bool { return c.ok("GET", si, nil)["op_state"] == "available" })
	h.login(iqn, "127.0.0.1")
	require.True(t, bytes.Equal(first, h.read(h.disks(iqn, 1)[0], 64<<20, 3<<20)), "content of the snapshot")
	h.logout(iqn)

	t.Log("everybody may log in with allow_all, and is dropped when that ends")
	open := simple("pv-open", 1)
	open["access_control_mode"] = "allow_all"
	openIQN := at(t, c.ok("POST", "/app_instances", open), "storage_instances", 0, "access", "iqn").(string)
	h.record(openIQN)
	h.login(openIQN, "127.0.0.2")
	require.Equal(t, []any{h.iqn}, c.ok("GET", "/app_instances/pv-open/storage_instances/storage-1", nil)["active_initiators"])
	c.ok("PUT", "/app_instances/pv-open/storage_instances/storage-1", js{"access_control_mode": "deny_all"})
	require.Empty(t, c.ok("GET", "/app_instances/pv-open/storage_instances/storage-1", nil)["active_initiators"])
	h.forget(openIQN)

	t.Log("nothing is left behind")
	shut()
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	require.NoError(t, err)
	require.Empty(t, loops)
	for _, left := range []string{"/sys/kernel/config/target/iscsi/iqn.*", "/sys/kernel/config/target/core/iblock_*", dir + "/tgtd.*"} {
		found, err := filepath.Glob(left)
		require.NoError(t, err)
		require.Subset(t, []string{dir + "/tgtd.log"}, append([]string{}, found...))
	}
	_, err = tcp("127.0.0.1:3260")
	require.ErrorIs(t, err, unix.ECONNREFUSED)
}

// head is the first MiB of a file.
func head(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	content := make([]byte, 1<<20)
	_, err = f.ReadAt(content, 0)
	require.NoError(t, err)
	return content
}
