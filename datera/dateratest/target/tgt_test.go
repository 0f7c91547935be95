package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeAdmin stands in for tgtadm.
type fakeAdmin struct {
	log    []string
	refuse string
	shows  map[string]string // answers by mode
}

func (f *fakeAdmin) run(_ context.Context, dir string, env []string, program string, args ...string) (string, error) {
	if dir != "/state" || program != "tgtadm" || !slices.Contains(env, "TGT_IPC_SOCKET=tgtd.socket") {
		return "", errors.New("not the own tgtd")
	}
	text := strings.Join(args, " ")
	text = strings.TrimPrefix(text, "--lld iscsi --mode ")
	mode, rest, _ := strings.Cut(text, " --op ")
	if strings.HasPrefix(rest, "show") {
		return f.shows[mode], nil
	}
	entry := mode + " " + rest
	if f.refuse != "" && strings.HasPrefix(entry, f.refuse) {
		return "", errors.New("exit status 22")
	}
	f.log = append(f.log, entry)
	return "", nil
}

func newFakeTGT(t *testing.T) (*TGT, *fakeAdmin) {
	t.Helper()
	admin := &fakeAdmin{shows: map[string]string{}}
	g := newTGT(tools{admin.run, func(ctx context.Context, _ string, _ []netip.AddrPort, ready func(context.Context) error) (*daemon, error) {
		return &daemon{process: ended(t), dir: t.TempDir(), gone: closed()}, ready(ctx)
	}})
	require.NoError(t, g.Open(t.Context(), "/state", prefix, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:3260"), netip.MustParseAddrPort("10.0.1.1:3260")}))
	return g, admin
}

// ended is a process that is over.
func ended(t *testing.T) *os.Process {
	t.Helper()
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	require.NoError(t, err)
	_, err = p.Wait()
	require.NoError(t, err)
	return p
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

const connections = `Session: 3
    Connection: 0
        Initiator: iqn.1993-08.org.debian:01:node2
        IP Address: 127.0.0.1
Session: 1
    Connection: 0
        Initiator: iqn.1993-08.org.debian:01:node1
        IP Address: 127.0.0.1
`

func TestTGTSequences(t *testing.T) {
	for _, step := range []struct {
		name   string
		change func(*Target)
		want   []string
	}{
		{"nothing new", nil, nil},
		{"host added", func(t *Target) { t.Initiators = []string{node1, node2} }, []string{"target bind --tid 1 --initiator-name " + node2}},
		{"host removed", func(t *Target) { t.Initiators = nil }, []string{"target unbind --tid 1 --initiator-name " + node1, "conn delete --tid 1 --sid 1 --cid 0"}},
		{"everybody", func(t *Target) { t.AllowAll = true }, []string{"target unbind --tid 1 --initiator-name " + node1,
			"target bind --tid 1 --initiator-address ALL"}},
		{"CHAP", func(t *Target) { t.Auth = Auth{User: "u", Password: "p"} }, []string{"account new --user u --password p", "account bind --tid 1 --user u"}},
		{"mutual CHAP", func(t *Target) { t.Auth = Auth{User: "u", Password: "p", MutualUser: "m", MutualPassword: "q"} },
			[]string{"account new --user u --password p", "account bind --tid 1 --user u", "account new --user m --password q",
				"account bind --tid 1 --user m --outgoing"}},
		{"portal down", func(t *Target) { t.Portals[1].Down = true }, []string{"portal delete --param portal=10.0.1.1:3260",
			"conn delete --tid 1 --sid 3 --cid 0", "conn delete --tid 1 --sid 1 --cid 0"}},
		{"grown", func(t *Target) { t.LUNs[0].Size = 2 << 30 }, []string{"logicalunit update --tid 1 --lun 1 --params online=0,path=/state/volumes/uuid-1"}},
		{"another volume", func(t *Target) { t.LUNs = []LUN{{Serial: "uuid-2", File: "/state/volumes/uuid-2", Size: 1 << 30}} },
			append([]string{"logicalunit delete --tid 1 --lun 1"}, export("1", "uuid-2")...)},
		{"second volume", func(t *Target) {
			t.LUNs = append(t.LUNs, LUN{Serial: "uuid-2", File: "/state/volumes/uuid-2", Size: 1 << 30})
		}, export("2", "uuid-2")},
	} {
		t.Run(step.name, func(t *testing.T) {
			g, admin := newFakeTGT(t)
			admin.shows["conn"] = connections
			require.NoError(t, g.Apply(t.Context(), wanted(nil)))
			require.Equal(t, append(append([]string{"target new --tid 1 --targetname " + iqn}, export("1", "uuid-1")...),
				"target bind --tid 1 --initiator-name "+node1), admin.log)
			admin.log = nil
			next := wanted(step.change)
			require.NoError(t, g.Apply(t.Context(), next))
			require.Equal(t, step.want, admin.log)
			admin.log = nil
			require.NoError(t, g.Apply(t.Context(), next))
			require.Empty(t, admin.log, "a second time changes nothing")
			require.NoError(t, g.Apply(t.Context(), wanted(nil)), "and back")
			require.NoError(t, g.Remove(t.Context(), iqn))
			require.NoError(t, g.Remove(t.Context(), iqn))
			require.Empty(t, g.accounts)
			require.NoError(t, g.Close(t.Context()))
		})
	}
}

func export(lun, serial string) []string {
	return []string{"logicalunit new --tid 1 --lun " + lun + " --backing-store /state/volumes/" + serial,
		"logicalunit update --tid 1 --lun " + lun + " --params vendor_id=DATERA,product_id=IBLOCK,product_rev=4.0,scsi_sn=" + serial +
			",scsi_id=" + serial + ",thin_provisioning=1"}
}

func TestTGTNoMoreEverybody(t *testing.T) {
	g, admin := newFakeTGT(t)
	admin.shows["conn"] = connections
	require.NoError(t, g.Apply(t.Context(), wanted(func(t *Target) { t.AllowAll = true })))
	admin.log = nil
	require.NoError(t, g.Apply(t.Context(), wanted(nil)))
	require.Equal(t, []string{"target unbind --tid 1 --initiator-address ALL", "conn delete --tid 1 --sid 3 --cid 0",
		"target bind --tid 1 --initiator-name " + node1}, admin.log, "who may stay stays")
}

func TestTGTAccounts(t *testing.T) {
	g, admin := newFakeTGT(t)
	chap := func(number, password string) Target {
		return wanted(func(t *Target) { t.IQN, t.Auth = prefix+number, Auth{User: "u", Password: password} })
	}
	require.NoError(t, g.Apply(t.Context(), chap("00000001", "p")))
	require.NoError(t, g.Apply(t.Context(), chap("00000002", "p")))
	err := g.Apply(t.Context(), chap("00000003", "other"))
	require.ErrorContains(t, err, "CHAP user u has another password at target "+prefix+"00000001")
	require.NotContains(t, err.Error(), "other;")
	admin.log = nil
	require.NoError(t, g.Remove(t.Context(), prefix+"00000001"))
	require.Equal(t, []string{"target delete --tid 1 --force"}, admin.log, "the account is still in use")
	require.NoError(t, g.Apply(t.Context(), chap("00000002", "new")))
	require.Equal(t, []string{"account unbind --tid 2 --user u", "account delete --user u", "account new --user u --password new",
		"account bind --tid 2 --user u"}, admin.log[1:])
}

func TestTGTFailures(t *testing.T) {
	for refuse, says := range map[string]string{
		"target new":         "new target: exit status 22",
		"logicalunit new":    "export volume uuid-1: new logicalunit",
		"logicalunit update": "export volume uuid-1: update logicalunit",
		"account new":        "new account",
		"account bind":       "bind account",
		"target bind":        "let " + node1 + " in",
	} {
		t.Run(refuse, func(t *testing.T) {
			g, admin := newFakeTGT(t)
			admin.refuse = refuse
			next := wanted(func(t *Target) { t.Auth = Auth{User: "u", Password: "secret-word-1"} })
			err := g.Apply(t.Context(), next)
			require.ErrorContains(t, err, says)
			require.ErrorContains(t, err, iqn)
			require.NotContains(t, err.Error(), "secret-word-1")
			admin.refuse = ""
			require.NoError(t, g.Apply(t.Context(), next), "the next time finishes what was begun")
			require.Equal(t, []string{node1}, g.targets[iqn].Initiators)
		})
	}
	for refuse, change := range map[string]func(*Target){
		"portal delete":      func(t *Target) { t.Portals[0].Down = true },
		"conn delete":        func(t *Target) { t.Portals[0].Down = true },
		"target unbind":      func(t *Target) { t.Initiators = nil },
		"logicalunit delete": func(t *Target) { t.LUNs = nil },
		"logicalunit update": func(t *Target) { t.LUNs[0].Size++ },
		"account unbind":     func(t *Target) { t.Auth = Auth{} },
	} {
		g, admin := newFakeTGT(t)
		admin.shows["conn"] = connections
		require.NoError(t, g.Apply(t.Context(), wanted(func(t *Target) { t.Auth = Auth{User: "u", Password: "p"} })))
		admin.refuse = refuse
		require.Error(t, g.Apply(t.Context(), wanted(func(t *Target) { t.Auth = Auth{User: "u", Password: "p"}; change(t) })), refuse)
		require.Error(t, func() error { admin.refuse = "target delete"; return g.Remove(t.Context(), iqn) }())
	}
}

func TestTGTSessions(t *testing.T) {
	g, admin := newFakeTGT(t)
	text, err := os.ReadFile("testdata/tgtadm-show-target.txt")
	require.NoError(t, err)
	admin.shows["target"] = string(text)
	sessions, err := g.Sessions(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"iqn.2013-05.com.daterainc:tc:01:sn:aa": {"iqn.1993-08.org.debian:01:node"},
		"iqn.2013-05.com.daterainc:tc:01:sn:bb": nil}, sessions)
	text, err = os.ReadFile("testdata/tgtadm-show-conn.txt")
	require.NoError(t, err)
	require.Equal(t, []connection{{"2", "0", "iqn.1993-08.org.debian:01:node"}, {"1", "0", "iqn.1993-08.org.debian:01:node"}}, parseConnections(string(text)))
	require.Equal(t, 1, g.FirstLUN())
	require.Equal(t, "tgt", g.Name())
}

func FuzzTgtadmOutput(f *testing.F) {
	for _, seed := range []string{connections, "", "Target 1: iqn.x\n    I_T nexus: 1\n Initiator: iqn.y alias: z\n", "Initiator: x", "Session\nConnection: \nInitiator: "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, out string) {
		for _, c := range parseConnections(out) {
			require.NotContains(t, c.host, " ")
		}
		for iqn, hosts := range parseSessions(out) {
			require.NotContains(t, iqn, "\n")
			require.NotContains(t, hosts, "\n")
		}
	})
}

// pretender is a tgtd that does what the test says.
func pretender(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tgtd")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	return file
}

func TestDaemon(t *testing.T) {
	dir, portals := t.TempDir(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3260"), netip.MustParseAddrPort("127.0.0.2:3260")}
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	tgtd := pretender(t, `echo "$@" >args; trap "" TERM; : >tgtd.socket.0; read x <>pipe`) // no child outlives a killed shell
	ready := func(context.Context) error {
		_, err := os.Stat(filepath.Join(dir, "tgtd.socket.0"))
		return err
	}
	first, err := launch(t.Context(), tgtd, dir, portals, ready)
	require.NoError(t, err)
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	require.NoError(t, err)
	require.Equal(t, "-f --iscsi portal=127.0.0.1:3260,portal=127.0.0.2:3260\n", string(args))
	require.True(t, isOurs(first.process.Pid, dir))
	require.False(t, isOurs(first.process.Pid, t.TempDir()), "another folder's")
	require.False(t, isOurs(os.Getpid(), dir))

	second, err := launch(t.Context(), tgtd, dir, portals, ready) // as after a kill -9 of the simulator
	require.NoError(t, err)
	select {
	case <-first.gone:
	case <-time.After(5 * time.Second):
		require.Fail(t, "the first one still runs")
	}
	require.NoError(t, second.stop(t.Context()))
	require.NoFileExists(t, filepath.Join(dir, "tgtd.pid"))
	require.NoFileExists(t, filepath.Join(dir, "tgtd.socket.0"))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "tgtd.pid"), []byte(strconv.Itoa(os.Getpid())), 0o600))
	require.NoError(t, endLeftover(t.Context(), dir), "a stranger that has got the number is left alone")
}

func TestDaemonDoesNotStart(t *testing.T) {
	portals := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3260")}
	fine := func(context.Context) error { return nil }
	_, err := launch(t.Context(), pretender(t, "echo out of luck; exit 3"), t.TempDir(), portals, func(context.Context) error { return errors.New("no answer") })
	require.ErrorContains(t, err, "it ended")
	require.ErrorContains(t, err, "out of luck")
	dir := t.TempDir()
	said := func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(dir, "tgtd.log"))
		if err == nil && len(text) == 0 {
			return errors.New("nothing yet")
		}
		return err
	}
	_, err = launch(t.Context(), pretender(t, "echo tgtd: Failed to initialize RDMA; echo unable to bind server socket, Address already in use; exec sleep 100"), dir, portals, said)
	require.ErrorContains(t, err, "cannot listen on all portals")
	require.NotContains(t, err.Error(), "RDMA")
	_, err = launch(t.Context(), "/no/such/tgtd", t.TempDir(), portals, fine)
	require.ErrorContains(t, err, "start tgtd")
	_, err = launch(t.Context(), "/bin/true", "/no/such/folder", portals, fine)
	require.ErrorIs(t, err, os.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = launch(ctx, pretender(t, "exec sleep 100"), t.TempDir(), portals, func(context.Context) error { return errors.New("no answer") })
	require.ErrorIs(t, err, context.Canceled)
}

func TestPrograms(t *testing.T) {
	out, err := run(t.Context(), "/", []string{"A=1"}, "sh", "-c", `echo $A $LC_ALL $PWD`)
	require.NoError(t, err)
	require.Equal(t, "1 C /\n", out)
	_, err = run(t.Context(), "/", nil, "sh", "-c", "echo oh; echo no; exit 3", "secret-word")
	require.EqualError(t, err, "sh: exit status 3: oh; no")
	path, err := find("sh", "dash")
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(path))
	_, err = find("no-such-program", "no-such-package")
	require.EqualError(t, err, "program no-such-program is not installed; on Debian it is in the package no-such-package")
}

// occupied is an address that somebody listens on.
func occupied(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}
