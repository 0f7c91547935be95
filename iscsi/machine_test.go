package iscsi

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	scanned    []string                     // what the kernel was told to scan
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
