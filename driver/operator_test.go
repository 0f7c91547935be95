package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// sight is what the verbs for people see of a host: its disks and mounts, and what the test adds.
type sight struct {
	*host
	t *testing.T

	down      []string // portals whose session is lost
	sessions  []iscsi.Session
	records   []iscsi.Record
	layers    []iscsi.Layer // on each disk
	diskState string
	stale     bool
	noDaemon  bool // nor one that would be started
	idle      bool // iscsid does not run
	versions  iscsi.Versions
	multipath iscsi.Multipath
	dead      []string // portals that cannot be reached
	trouble   map[string]error
	holding   map[string]mount.Mount // by folder
	users     []string
	says      map[string]string // programs, and what they say of their version
	hang      chan struct{}     // Reach waits for it
}

func (s *sight) Sessions() ([]iscsi.Session, error) {
	defer s.lock()()
	sessions := slices.Clone(s.sessions)
	for _, path := range slices.Sorted(maps.Keys(s.disks)) {
		disk := s.disks[path]
		for n, portal := range disk.Target.Portals {
			session := iscsi.Session{ID: len(sessions) + 1, IQN: disk.Target.IQN, Portal: portal, State: "LOGGED_IN"}
			if slices.Contains(s.down, portal) {
				session.State = "FAILED"
			}
			if n == 0 {
				session.Disks = []iscsi.Disk{{
					Path: path, Number: numberOfDisk(path), LUN: disk.Target.LUN, Vendor: diskVendor, Serial: disk.Target.Serial,
					State: s.diskState, Bytes: disk.Bytes, Layers: s.layers,
				}}
			}
			sessions = append(sessions, session)
		}
	}
	return sessions, s.fails["sessions"]
}

// numberOfDisk numbers /dev/sda as 8:0, /dev/sdb as 8:16, …
func numberOfDisk(path string) string { return fmt.Sprintf("8:%d", 16*int(path[len(path)-1]-'a')) }

func (s *sight) All() ([]mount.Mount, error) {
	defer s.lock()()
	var mounts []mount.Mount
	for _, mounted := range s.mounts {
		mounted.Major, mounted.Minor = 8, 16*int(mounted.Device[len(mounted.Device)-1]-'a')
		mounts = append(mounts, mounted)
	}
	return mounts, s.fails["mountinfo"]
}

func (s *sight) Records() ([]iscsi.Record, error) { return s.records, s.fails["records"] }

func (s *sight) DeleteRecords(_ context.Context, iqn string) error {
	s.records = slices.DeleteFunc(s.records, func(r iscsi.Record) bool { return r.IQN == iqn })
	return s.did("forget %s", iqn)
}

const lockPath = "/run/lock/iscsi/lock.write"

func (s *sight) StaleLock() (string, bool) { return lockPath, s.stale }

func (s *sight) BreakStaleLock(context.Context) error {
	s.stale = false
	return s.did("break %s", lockPath)
}

func (s *sight) CheckDaemon() error {
	if s.noDaemon {
		return iscsi.ErrNoDaemon
	}
	return nil
}

func (s *sight) DaemonRuns() bool { return !s.idle }

func (s *sight) Versions(context.Context) (iscsi.Versions, error) {
	return s.versions, s.fails["versions"]
}

func (s *sight) Multipath(vendor, product string) (iscsi.Multipath, error) {
	require.Equal(s.t, "DATERA IBLOCK", vendor+" "+product)
	return s.multipath, s.fails["multipath"]
}

func (s *sight) Reach(_ context.Context, portal iscsi.Portal) error {
	if s.hang != nil {
		<-s.hang
	}
	if slices.Contains(s.dead, portal) {
		return fmt.Errorf("%w: connection refused", iscsi.ErrUnreachable)
	}
	return nil
}

func (s *sight) Trouble(_ context.Context, mounted mount.Mount) error { return s.trouble[mounted.Path] }

func (s *sight) Holding(path string) (mount.Mount, error) {
	if held, found := s.holding[path]; found {
		return held, nil
	}
	return mount.Mount{Path: "/"}, s.fails["holding"]
}

func (s *sight) Users(_ context.Context, devices ...string) ([]string, error) {
	require.NotEmpty(s.t, devices)
	return s.users, s.fails["users"]
}

// Run answers for programs that are asked their version.
func (s *sight) Run(_ context.Context, program string, args ...string) ([]byte, error) {
	require.Contains(s.t, []string{"-V", "--version"}, strings.Join(args, " "))
	said, found := s.says[program]
	if !found {
		return nil, fmt.Errorf("`%s`: %w", program, errInjected)
	}
	return []byte(said), nil
}

func (s *sight) lookPath(program string) (string, error) {
	if _, found := s.says[program]; !found {
		return "", errors.New("not found")
	}
	return "/sbin/" + program, nil
}

// desk is a node at whose shell somebody sits. Everything is well there.
type desk struct {
	*Operator
	*sight
	proc    string // a /proc of its own
	kubelet string // root directory of the kubelet that it shows
	plugins string
}

func newDesk(t *testing.T, change ...func(*Config)) *desk {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	d := &desk{proc: filepath.Join(dir, "proc"), kubelet: filepath.Join(dir, "kubelet"), plugins: filepath.Join(dir, "plugins")}
	d.sight = &sight{
		host: newHost("node-a"), t: t, diskState: "running", versions: iscsi.Versions{Client: "2.1.8", Daemon: "2.1.8"},
		trouble: map[string]error{}, holding: map[string]mount.Mount{},
		says: map[string]string{
			"iscsiadm": "", "umount": "", "xfs_growfs": "", "resize2fs": "", "mount": "mount from util-linux 2.38.1 (libmount 2.38.1: selinux)\n",
			"mkfs.xfs": "mkfs.xfs version 6.1.0\n", "mkfs.ext4": "mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n",
		},
	}
	config := defaultConfig()
	config.StateDir, config.RunDir, config.Node = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "node-a"
	config.Log.Path = filepath.Join(dir, "log", "iscsi.log")
	for _, apply := range change {
		apply(&config)
	}
	d.Operator = &Operator{
		Driver: &Driver{Config: config, Initiator: d.sight, Mounter: d.sight, Log: slog.New(slog.DiscardHandler)},
		Node:   d.sight, Mounts: d.sight, Programs: d.sight,
		Host:      Host{ProcRoot: d.proc, SysRoot: filepath.Join(dir, "sys"), ModulesRoot: filepath.Join(dir, "modules"), LookPath: d.sight.lookPath},
		OpenProbe: func(string, Credentials, string) (ArrayProbe, error) { return nil, errInjected },
	}
	d.write(t, filepath.Join(d.proc, "812/comm"), "kubelet\n")
	d.write(t, filepath.Join(d.proc, "812/cmdline"), "/usr/bin/kubelet\x00--root-dir="+d.kubelet+"\x00--volume-plugin-dir\x00"+d.plugins+"\x00")
	d.write(t, filepath.Join(d.proc, "filesystems"), "nodev\tproc\n\text4\n\txfs\n")
	d.write(t, filepath.Join(dir, "sys/module/iscsi_tcp/refcnt"), "0\n")
	d.write(t, filepath.Join(d.plugins, "datera~iscsi/iscsi"), "")
	require.NoError(t, os.Chmod(filepath.Join(d.plugins, "datera~iscsi/iscsi"), 0o755))
	require.NoError(t, os.Mkdir(d.kubelet, 0o755))
	return d
}

func (d *desk) write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// age makes a file look as if it had been written long ago.
func age(t *testing.T, path string, ago time.Duration) {
	t.Helper()
	then := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(path, then, then))
}

const (
	iqnOne = "iqn.2013-05.com.daterainc:tc:01:sn:0000000000000001"
	iqnTwo = "iqn.2013-05.com.daterainc:tc:01:sn:0000000000000002"
	serial = "0b5f9f3c-7c21-4a5e-9d0c-6f1f1a2b3c4d"
)

// journalled puts a volume into the journal, as waitforattach does, and returns its target.
func (d *desk) journalled(t *testing.T, name, iqn string, ago time.Duration) iscsi.Target {
	t.Helper()
	attachment := Attachment{Target: iscsi.Target{Portals: []string{"10.0.0.1:3260", "10.0.1.1:3260"}, IQN: iqn, Serial: serial}, SizeGiB: 100}
	require.NoError(t, d.journal().write(name, record{Name: name, AppInstance: "kube-" + name, Device: attachment.String()}))
	age(t, d.journal().inUse(name), ago)
	return attachment.Target
}

// attached gives the host the disk of a target.
func (d *desk) attached(target iscsi.Target, path string) {
	d.host.sessions[target.IQN] = true
	d.disks[path] = foundDisk(path, Attachment{Target: target, SizeGiB: 100})
}

// mounted mounts a disk for the node and for a pod.
func (d *desk) mounted(name, disk string) {
	for _, path := range []string{d.kubelet + "/" + globalMounts + "/" + name, d.podPath("pod-1", name)} {
		d.mounts = append(d.mounts, mount.Mount{Device: disk, Path: path, Root: "/", Filesystem: "xfs"})
	}
}

func (d *desk) podPath(uid, name string) string {
	return d.kubelet + "/pods/" + uid + "/volumes/" + FolderName + "/" + name
}

// running is a volume in use.
func (d *desk) running(t *testing.T, name, iqn, disk string) {
	t.Helper()
	d.attached(d.journalled(t, name, iqn, time.Hour), disk)
	d.mounted(name, disk)
}

// onArray lets the desk speak to a simulated array by the real client.
func (d *desk) onArray(t *testing.T, server *dateratest.Server) *desk {
	t.Helper()
	d.Config.ManagementIP, d.Config.Username, d.Config.Password = server.Address(), "admin", "password"
	if strings.HasPrefix(server.URL, "http:") {
		d.Config.Scheme = "http"
	}
	d.OpenProbe = func(scheme string, credentials Credentials, tenant string) (ArrayProbe, error) {
		connection := d.Config.ArrayClient(scheme, credentials, tenant)
		connection.TokenDir = ""
		return datera.New(connection)
	}
	return d
}

// goldenText compares a text, in which the test's own folder is replaced, with a file in testdata.
func goldenText(t *testing.T, name, text, dir string) {
	t.Helper()
	text = strings.ReplaceAll(text, dir, "")
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}
