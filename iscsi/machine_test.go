package iscsi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// machine is a machine with iscsid, made of a directory that looks like its file systems and a Runner that does to it
// what iscsiadm and multipath do. What its programs say, and with which exit code, is captured from real ones.
type machine struct {
	t    *testing.T
	root string

	mu         sync.Mutex
	targets    map[string]*fakeTarget
	records    map[string]map[string]string // iqn|portal → settings of the node record
	ran        []string                     // programs with their arguments
	serials    map[string]string            // name of disk → serial it was found with
	nextHost   int
	nextDisk   int
	newRecord  string // that iscsiadm makes
	multipathd bool
	pathsOf    map[string][]string // map → its paths

	// fault, when set, may answer for a program.
	fault func(ctx context.Context, program string, args []string) (said string, handled bool)
	claim func(device string) error
}

// fakeTarget is one target of an array.
type fakeTarget struct {
	portals []Portal // that listen
	luns    map[int]fakeLUN
	says    string // file in testdata/said with the answer to a login; "login" unless set
}

type fakeLUN struct {
	serial string
	bytes  int64
}

func newMachine(t *testing.T) *machine {
	m := &machine{
		t: t, root: t.TempDir(),
		targets: map[string]*fakeTarget{}, records: map[string]map[string]string{},
		serials: map[string]string{}, pathsOf: map[string][]string{}, newRecord: "# BEGIN RECORD 2.1.8\nnode.session.reopen_max = 32\n",
	}
	m.mkdir("sys/class/iscsi_session")
	m.mkdir("sys/class/block")
	m.mkdir("dev")
	m.write("proc/self/mountinfo", "26 24 259:1 / / rw,relatime shared:9 - ext4 /dev/nvme0n1p1 rw\n")
	m.write("proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"+
		"00000000f339bbbc: 00000002 00000000 00010000 0001 01 10371 @ISCSIADM_ABSTRACT_NAMESPACE\n")
	m.write("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:node\n")
	return m
}

const (
	testIQN    = "iqn.2013-05.com.daterainc:tc:01:sn:abc"
	testSerial = "0b5f9f3c-7c21-4a5e-9d0c-6f1f1a2b3c4d"
	portalA    = "10.0.0.1:3260"
	portalB    = "10.0.1.1:3260"
	gib        = int64(1) << 30
)

// oneVolume puts the usual target on the array and returns how to reach it.
func (m *machine) oneVolume(portals ...Portal) (Target, *fakeTarget) {
	if len(portals) == 0 {
		portals = []Portal{portalA}
	}
	fake := &fakeTarget{portals: portals, luns: map[int]fakeLUN{0: {testSerial, gib}}}
	m.targets[testIQN] = fake
	return Target{Portals: portals, IQN: testIQN, LUN: 0, Serial: testSerial}, fake
}

// initiator is one for this machine that does not wait long for what never comes.
func (m *machine) initiator() *Initiator {
	i := New(m, Options{
		SysRoot: m.path("sys"), ProcRoot: m.path("proc"), DevRoot: m.path("dev"), EtcRoot: m.path("etc"),
		RunRoot: m.path("run"), VarRoot: m.path("var"),
		LoginTimeout: time.Second, LoginRetries: 1, MapTimeout: 100 * time.Millisecond,
	})
	i.kernel = kernel{
		scan:   m.scan,
		rescan: m.rescan,
		delete: func(d disk) error { m.mu.Lock(); defer m.mu.Unlock(); m.removeDisk(d.dir); return nil },
		flush:  func(string) error { return nil },
		claim: func(device string) error {
			if m.claim != nil {
				return m.claim(device)
			}
			return nil
		},
	}
	i.dial = m.dial
	return i
}

func (m *machine) path(parts ...string) string {
	return filepath.Join(append([]string{m.root}, parts...)...)
}

// check reports what must not fail, and goes on: it may not be the test's own goroutine.
func (m *machine) check(err error) {
	if err != nil {
		m.t.Errorf("machine: %v", err)
	}
}

func (m *machine) mkdir(path string) { m.check(os.MkdirAll(m.path(path), 0o755)) }

func (m *machine) write(path, content string) {
	m.mkdir(filepath.Dir(path))
	temporary := m.path(path) + ".new" // the kernel's files are never half written
	m.check(os.WriteFile(temporary, []byte(content), 0o644))
	m.check(os.Rename(temporary, m.path(path)))
}

func (m *machine) link(path, target string) {
	m.mkdir(filepath.Dir(path))
	m.check(os.Symlink(target, m.path(path)))
}

func (m *machine) remove(path string) { m.check(os.RemoveAll(m.path(path))) }

// programs gives those that ran since the last call.
func (m *machine) programs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ran := m.ran
	m.ran = nil
	return ran
}

func (m *machine) mount(name, point string) {
	m.write("proc/self/mountinfo", "30 24 "+attribute(m.path("sys/class/block", name), "dev")+" / "+point+" rw - xfs /dev/"+name+" rw\n")
}

// dial answers for portals that listen, refuses others, and hears nothing from 203.0.113.0/24.
func (m *machine) dial(ctx context.Context, _, address string) (net.Conn, error) {
	if strings.HasPrefix(address, "203.0.113.") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, target := range m.targets {
		if slices.Contains(target.portals, address) {
			ours, theirs := net.Pipe()
			return ours, theirs.Close()
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

type exitError int

func (e exitError) Error() string { return "exit status " + strconv.Itoa(int(e)) }
func (e exitError) ExitCode() int { return int(e) }

// said is what a program said in reality, and its exit.
func said(t *testing.T, name string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join("testdata", "said", name+".txt"))
	if err != nil {
		t.Error(err)
		return nil, err
	}
	first, output, _ := strings.Cut(string(content), "\n")
	code, err := strconv.Atoi(strings.TrimPrefix(first, "exit "))
	if err != nil {
		t.Errorf("%s.txt: %v", name, err)
	}
	if code == 0 {
		return []byte(output), nil
	}
	return []byte(output), exitError(code)
}

// Run is what a program does.
func (m *machine) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.ran = append(m.ran, program+" "+strings.Join(args, " "))
	fault := m.fault
	m.mu.Unlock()
	if fault != nil {
		if answer, handled := fault(ctx, program, args); handled {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return said(m.t, answer)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch program {
	case "iscsiadm":
		return said(m.t, m.iscsiadm(args))
	case "multipath":
		return nil, m.flushMap(args[1])
	case "multipathd":
		m.growMap(args[2])
		return []byte("ok\n"), nil
	}
	return nil, fmt.Errorf("unexpected program %s", program)
}

// iscsiadm returns the name of what it says.
func (m *machine) iscsiadm(args []string) string {
	option := func(name string) string {
		if n := slices.Index(args, name); n >= 0 && n+1 < len(args) {
			return args[n+1]
		}
		return ""
	}
	iqn, portal := option("-T"), option("-p")
	key := iqn + "|" + portal
	switch {
	case option("-o") == "new":
		if info, err := os.Stat(m.recordPath(iqn, portal)); err == nil && info.Size() == 0 {
			return "new-over-empty-record"
		}
		m.write(strings.TrimPrefix(m.recordPath(iqn, portal), m.root), m.newRecord)
		m.records[key] = map[string]string{}
		return "new"
	case option("-o") == "update":
		record, ok := m.records[key]
		if !ok {
			return "delete-again"
		}
		for n := range args {
			if args[n] == "-n" {
				if args[n+1] == reopenMax && !strings.Contains(m.newRecord, reopenMax) {
					return "update-bad-name"
				}
				record[args[n+1]] = args[n+3]
			}
		}
		return "update"
	case option("-o") == "delete":
		return m.deleteRecords(iqn, portal)
	case slices.Contains(args, "--login"):
		return m.login(iqn, portal)
	case slices.Contains(args, "--logout"):
		if number := option("-r"); number != "" {
			return m.logoutSession("session"+number, "logout-no-session-number")
		}
		says := "logout-again"
		for name := m.sessionAt(iqn, portal); name != ""; name = m.sessionAt(iqn, portal) {
			says = m.logoutSession(name, says)
		}
		return says
	}
	m.t.Errorf("unexpected iscsiadm %q", args)
	return "delete-again"
}

func (m *machine) recordPath(iqn, portal string) string {
	host, port, err := net.SplitHostPort(portal)
	m.check(err)
	return m.path("etc/iscsi/nodes", iqn, host+","+port)
}

func (m *machine) deleteRecords(iqn, portal string) string {
	says := "delete-again"
	for key := range m.records {
		name, at, _ := strings.Cut(key, "|")
		if name != iqn || portal != "" && at != portal {
			continue
		}
		if m.sessionAt(iqn, at) != "" {
			return "delete-with-session"
		}
		delete(m.records, key)
		m.check(os.Remove(m.recordPath(iqn, at)))
		says = "delete"
	}
	_ = os.Remove(m.path("etc/iscsi/nodes", iqn))
	return says
}

func (m *machine) login(iqn, portal string) string {
	target := m.targets[iqn]
	switch {
	case m.records[iqn+"|"+portal] == nil:
		return "login-no-record"
	case m.sessionAt(iqn, portal) != "":
		return "login-again"
	case target == nil || !slices.Contains(target.portals, portal):
		return "login-dead-port"
	case target.says != "":
		return target.says
	}
	m.addSession(iqn, portal, "LOGGED_IN")
	return "login"
}

// addSession makes the kernel's side of a login.
func (m *machine) addSession(iqn, portal, state string) (name string) {
	host, id := m.nextHost, m.nextHost+11
	m.nextHost++
	name = "session" + strconv.Itoa(id)
	dir := fmt.Sprintf("sys/devices/platform/host%d/session%d", host, id)
	class := fmt.Sprintf("%s/iscsi_session/session%d", dir, id)
	connection := fmt.Sprintf("%s/connection%d:0/iscsi_connection/connection%[2]d:0", dir, id)
	address, port, err := net.SplitHostPort(portal)
	m.check(err)
	for path, value := range map[string]string{
		class + "/targetname": iqn, class + "/state": state, class + "/target_id": "0", class + "/recovery_tmo": "120",
		connection + "/address": address, connection + "/port": port,
		connection + "/persistent_address": address, connection + "/persistent_port": port,
	} {
		m.write(path, value+"\n")
	}
	m.write(fmt.Sprintf("sys/class/scsi_host/host%d/scan", host), "")
	m.link(class+"/device", "../../../"+name)
	m.link("sys/class/iscsi_session/"+name, fmt.Sprintf("../../devices/platform/host%d/%s/iscsi_session/%[2]s", host, name))
	return name
}

func (m *machine) setState(name, state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write("sys/class/iscsi_session/"+name+"/state", state+"\n")
}

// sessionAt is the name of a session, "" when there is none.
func (m *machine) sessionAt(iqn, portal string) string {
	names, _ := os.ReadDir(m.path("sys/class/iscsi_session"))
	for _, name := range names {
		s, ok := readSession(m.path("sys/class/iscsi_session", name.Name()))
		if ok && s.iqn == iqn && s.at(portal) {
			return name.Name()
		}
	}
	return ""
}

func (m *machine) logoutSession(name, otherwise string) string {
	s, ok := readSession(m.path("sys/class/iscsi_session", name))
	if name == "" || !ok {
		return otherwise
	}
	for _, d := range s.disks() {
		m.removeDisk(d.dir)
	}
	m.check(os.Remove(s.class))
	m.check(os.RemoveAll(s.dir))
	return "logout"
}

// scan is a write to a SCSI host's scan file.
func (m *machine) scan(path, address string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var channel, id, lun int
	if _, err := fmt.Sscanf(address, "%d %d %d", &channel, &id, &lun); err != nil {
		return syscall.EINVAL
	}
	host := filepath.Base(filepath.Dir(path))
	sessions, _ := filepath.Glob(m.path("sys/devices/platform", host, "session*/iscsi_session/session*"))
	for _, class := range sessions {
		s, _ := readSession(class)
		if found, ok := m.targets[s.iqn].luns[lun]; ok {
			m.addDisk(s, lun, found)
		}
	}
	return nil
}

// addDisk is what the kernel shows of a LUN it has found.
func (m *machine) addDisk(s session, lun int, found fakeLUN) {
	hctl := fmt.Sprintf("%d:0:0:%d", s.host, lun)
	dir := fmt.Sprintf("sys/devices/platform/host%d/session%d/target%[1]d:0:0/%[3]s", s.host, s.id, hctl)
	if exists(m.path(dir)) {
		return
	}
	name := "sd" + string(rune('a'+m.nextDisk))
	block := dir + "/block/" + name
	m.write(dir+"/type", "0\n")
	m.write(dir+"/state", "running\n")
	m.write(dir+"/vpd_pg80", "\x00\x80\x00"+string(rune(len(found.serial)+1))+" "+found.serial)
	m.write(block+"/size", strconv.FormatInt(found.bytes/512, 10)+"\n")
	m.write(block+"/dev", fmt.Sprintf("8:%d\n", 16*m.nextDisk))
	m.mkdir(block + "/holders")
	m.link(block+"/device", "../../../"+hctl)
	m.link("sys/class/block/"+name, fmt.Sprintf("../../devices/platform/host%d/session%d/target%[1]d:0:0/%[3]s/block/%[4]s", s.host, s.id, hctl, name))
	m.write("dev/"+name, "")
	m.serials[name] = found.serial
	m.nextDisk++
	if m.multipathd {
		m.addPath(name, found)
	}
}

// addUnserved is what the kernel shows of a LUN that the target knows and does not serve.
func (m *machine) addUnserved(s session, lun int) (dir string) {
	dir = fmt.Sprintf("sys/devices/platform/host%d/session%d/target%[1]d:0:0/%[1]d:0:0:%[3]d", s.host, s.id, lun)
	m.write(dir+"/type", "0\n")
	m.write(dir+"/state", "running\n")
	return m.path(dir)
}

// addPath is what multipathd does about a new disk.
func (m *machine) addPath(name string, found fakeLUN) {
	owner := ""
	for candidate, paths := range m.pathsOf {
		if m.serials[paths[0]] == found.serial {
			owner = candidate
		}
	}
	if owner == "" {
		owner = "dm-" + strconv.Itoa(len(m.pathsOf))
		block := "sys/devices/virtual/block/" + owner
		m.write(block+"/size", strconv.FormatInt(found.bytes/512, 10)+"\n")
		m.write(block+"/dev", "253:"+strings.TrimPrefix(owner, "dm-")+"\n")
		m.write(block+"/dm/uuid", "mpath-3600000000000000e00000000"+strconv.Itoa(len(found.serial))+"\n")
		m.write(block+"/dm/name", "mpath"+strings.TrimPrefix(owner, "dm-")+"\n")
		m.mkdir(block + "/holders")
		m.mkdir(block + "/slaves")
		m.link("sys/class/block/"+owner, "../../devices/virtual/block/"+owner)
		m.write("dev/"+owner, "")
	}
	m.pathsOf[owner] = append(m.pathsOf[owner], name)
	m.join(owner, name)
}

// join makes name a path of a map.
func (m *machine) join(owner, name string) {
	m.link("sys/class/block/"+owner+"/slaves/"+name, m.path("sys/class/block", name))
	m.link("sys/class/block/"+name+"/holders/"+owner, m.path("sys/class/block", owner))
}

func (m *machine) flushMap(alias string) error {
	for owner, paths := range m.pathsOf {
		if attribute(m.path("sys/class/block", owner), "dm/name") != alias {
			continue
		}
		for _, name := range paths {
			_ = os.Remove(m.path("sys/class/block", name, "holders", owner))
		}
		delete(m.pathsOf, owner)
		m.remove("sys/class/block/" + owner)
		m.remove("sys/devices/virtual/block/" + owner)
		m.remove("dev/" + owner)
		return nil
	}
	return exitError(1)
}

func (m *machine) growMap(alias string) {
	for owner, paths := range m.pathsOf {
		if attribute(m.path("sys/class/block", owner), "dm/name") == alias {
			m.write("sys/class/block/"+owner+"/size", attribute(m.path("sys/class/block", paths[0]), "size")+"\n")
		}
	}
}

func (m *machine) removeDisk(dir string) {
	names, _ := os.ReadDir(filepath.Join(dir, "block"))
	for _, name := range names {
		_ = os.Remove(m.path("sys/class/block", name.Name()))
		_ = os.Remove(m.path("dev", name.Name()))
	}
	m.check(os.RemoveAll(dir))
}

// rescan reads a disk's size anew, as its target has it now.
func (m *machine) rescan(d disk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write("sys/class/block/"+d.name+"/size", strconv.FormatInt(m.targets[d.session.iqn].luns[d.lun].bytes/512, 10)+"\n")
	return nil
}

// loadTree lays out a tree captured from a real machine.
func loadTree(t *testing.T, name string) *machine {
	m := newMachine(t)
	m.remove("proc/self/mountinfo")
	m.remove("proc/net/unix")
	content, err := os.ReadFile(filepath.Join("testdata", name+".tree"))
	require.NoError(t, err)
	for line := range strings.Lines(string(content)) {
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		switch kind {
		case "#":
		case "dir":
			m.mkdir(rest)
		case "node":
			m.write(rest, "")
		case "link":
			path, target, _ := strings.Cut(rest, " -> ")
			m.link(path, target)
		case "text":
			path, value, _ := strings.Cut(rest, ": ")
			earlier, _ := os.ReadFile(m.path(path)) // several lines of one file
			m.write(path, string(earlier)+value+"\n")
		case "hex":
			path, value, _ := strings.Cut(rest, ": ")
			bytes, err := hex.DecodeString(value)
			require.NoError(t, err)
			m.write(path, string(bytes))
		default:
			t.Fatalf("%s.tree: %q", name, line)
		}
	}
	return m
}

// nothingLeft demands that the machine is as if nothing had ever been attached.
func (m *machine) nothingLeft() {
	m.t.Helper()
	sessions, err := os.ReadDir(m.path("sys/class/iscsi_session"))
	require.NoError(m.t, err)
	require.Empty(m.t, sessions, "sessions left")
	require.Empty(m.t, m.records, "node records left")
	require.NoDirExists(m.t, m.path("etc/iscsi/nodes", testIQN), "directory of node records left")
}

var errFake = errors.New("fake")
