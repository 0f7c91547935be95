package install

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
	"datera-flexvolume/iscsi"
)

const (
	node      = "node-a"
	name      = "k8s_kubernetes_node-a"
	iqn       = "iqn.1993-08.org.debian:01:node-a"
	otherIQN  = "iqn.1993-08.org.debian:01:other"
	pluginDir = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
	secret    = "password-canary"
)

// driverFiles are what an installation leaves in the driver's folder.
var driverFiles = []string{".datera-config", ".datera-initiators", "iscsi"}

// host is a node with open-iscsi, an installer on it, and an array.
type host struct {
	*Installer
	t      *testing.T
	root   string
	source string // the configuration to install
	array  *dateratest.Server

	mutex   sync.Mutex
	events  []Event
	volumes []driver.VolumeStatus
}

func newHost(t *testing.T, options ...dateratest.Option) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir(), array: dateratest.Start(t, append(options, dateratest.WithUser("admin", secret))...)}
	h.source = filepath.Join(h.root, "source", "datera-config")
	h.configure("")
	h.write("executable", "version 1")
	h.setInitiator(iqn)
	h.write("etc/iscsi/iscsid.conf", "")
	h.write("proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"+
		"0000000000000000: 00000002 00000000 00010000 0001 01 20482 @ISCSIADM_ABSTRACT_NAMESPACE\n")
	h.write("usr/sbin/iscsiadm", "")
	h.write("usr/sbin/mkfs.xfs", "")
	h.Installer = h.another()
	return h
}

// another is an installer that knows nothing of what the first has done, as after a restart.
func (h *host) another() *Installer {
	return &Installer{
		Executable: filepath.Join(h.root, "executable"), Version: "1.0.0", Root: h.root, PluginDir: pluginDir, Node: node, Credentials: true,
		Load: func() (driver.Config, error) {
			return driver.LoadConfig([]string{h.source, "/no/such/file"}, func(string) string { return "" })
		},
		OpenArray: func(config driver.Config) (Array, error) {
			scheme, credentials, err := config.Connection()
			if err != nil {
				return nil, err
			}
			return datera.New(datera.Config{Address: credentials.Server.String(), Scheme: scheme, CAFile: config.CAFile,
				Username: credentials.Username, Password: credentials.Password, Tenant: config.Tenant})
		},
		Initiator: iscsi.New(nil, iscsi.Options{EtcRoot: filepath.Join(h.root, "etc"), ProcRoot: filepath.Join(h.root, "proc")}),
		Volumes: func(context.Context, string) ([]driver.VolumeStatus, error) {
			h.mutex.Lock()
			defer h.mutex.Unlock()
			return h.volumes, nil
		},
		Report: func(event Event) {
			h.mutex.Lock()
			defer h.mutex.Unlock()
			h.events = append(h.events, event)
		},
		firstRetry: time.Millisecond,
	}
}

func (h *host) write(path, content string) {
	h.t.Helper()
	path = filepath.Join(h.root, path)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(h.t, os.WriteFile(path, []byte(content), 0o600))
}

// configure writes the source of the configuration: the array, and what further is given.
func (h *host) configure(further string) {
	h.write("source/datera-config", fmt.Sprintf("mgmt_ip: %s\nscheme: http\nusername: admin\npassword: %s\n%s", h.array.Address(), secret, further))
}

func (h *host) setInitiator(iqn string) {
	h.write("etc/iscsi/initiatorname.iscsi", "InitiatorName="+iqn+"\n")
}

// installed is the path of a file in the driver's folder.
func (h *host) installed(name string) string {
	return filepath.Join(h.root, pluginDir, "datera~iscsi", name)
}

func (h *host) read(name string) string {
	content, err := os.ReadFile(h.installed(name))
	if err != nil {
		return ""
	}
	return string(content)
}

// files are all there are in the driver's folder.
func (h *host) files() []string {
	entries, _ := os.ReadDir(h.installed(""))
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// identity changes when a file is written or replaced.
func (h *host) identity(name string) string {
	info, err := os.Lstat(h.installed(name))
	require.NoError(h.t, err)
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(stat.Ino, info.ModTime().UnixNano(), stat.Ctim)
}

// config is what the driver on the host reads.
func (h *host) config() driver.Config {
	config, err := driver.LoadConfig([]string{h.installed(".datera-config")}, func(string) string { return "" })
	require.NoError(h.t, err)
	return config
}

func (h *host) install() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(h.t, h.Install(ctx, 0), "%s", h.lines())
}

// refuses wants one attempt to fail with these words.
func (h *host) refuses(words string) {
	h.t.Helper()
	_, failures := h.another().installOnce(h.t.Context())
	require.Len(h.t, failures, 1)
	require.ErrorContains(h.t, failures[0].err, words)
}

// watch installs and goes on until the test ends.
func (h *host) watch() {
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Install(ctx, 5*time.Millisecond) }()
	h.t.Cleanup(func() {
		cancel()
		require.NoError(h.t, <-ended, "a watch that is told to stop must end well")
		_, err := os.Lstat(h.installed("iscsi"))
		require.NoError(h.t, err, "the end of the installer took the driver along")
	})
	h.says(StepReady, OK, "")
}

// says waits for an event of a step whose message holds the words, and forgets all before it.
func (h *host) says(step Step, state State, words string) {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		at := slices.IndexFunc(h.events, func(e Event) bool { return e.Step == step && e.State == state && strings.Contains(e.Message, words) })
		if at >= 0 {
			h.events = h.events[at+1:]
		}
		return at >= 0
	}, 5*time.Second, 2*time.Millisecond, "%s %s %q was not said; but:\n%s", step, state, words, lazily(h.lines))
}

type lazily func() string

func (l lazily) String() string { return l() }

// lines are the events as people read them.
func (h *host) lines() string {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	var lines []string
	for _, event := range h.events {
		lines = append(lines, event.String())
	}
	return strings.Join(lines, "\n")
}

// grant gives initiators access to a volume, as attach does.
func (h *host) grant(iqns ...string) { h.grantIn("/root", iqns...) }

func (h *host) grantIn(tenant string, iqns ...string) {
	h.claim(tenant, "k8s_kubernetes_pv-1", iqns...)
}

// claim puts initiators into a group.
func (h *host) claim(tenant, group string, iqns ...string) {
	h.t.Helper()
	members := []any{}
	for _, iqn := range iqns {
		members = append(members, map[string]any{"path": "/initiators/" + iqn})
	}
	_, err := h.array.Do(tenant, http.MethodPost, "/initiator_groups", map[string]any{"name": group, "members": members})
	require.NoError(h.t, err)
}

// through puts something between the installer and the array.
func (h *host) through(between func(Array) Array) {
	open := h.OpenArray
	h.OpenArray = func(config driver.Config) (Array, error) {
		array, err := open(config)
		return between(array), err
	}
}

// detachAll takes the access away again.
func (h *host) detachAll() {
	_, err := h.array.Do("/root", http.MethodDelete, "/initiator_groups/k8s_kubernetes_pv-1", map[string]any{})
	require.NoError(h.t, err)
}

// forget makes the array lose an initiator.
func (h *host) forget(iqn string) {
	_, err := h.array.Do("/root", http.MethodDelete, "/initiators/"+iqn, map[string]any{})
	require.NoError(h.t, err)
}
