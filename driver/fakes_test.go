package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// host stands for a node's kernel: its disks and its mounts. The real ones are tried in
// the virtual machine.
type host struct {
	mutex    sync.Mutex
	iqn      string
	sessions map[string]bool          // by target
	disks    map[string]iscsi.Device  // by path
	content  map[string]mount.Content // by serial
	filled   map[string]int64         // size of the file system, by serial
	mounts   []mount.Mount
	done     []string // what was changed, in order
	removed  []string // directories
	fails    map[string]error
	hides    bool   // Attach does not see the disks that are there
	onLogin  func() // something happens at the same time
	held     int    // so many times a disk is found in use
}

func newHost(name string) *host {
	return &host{
		iqn:      "iqn.1993-08.org.debian:01:" + name,
		sessions: map[string]bool{}, disks: map[string]iscsi.Device{}, content: map[string]mount.Content{}, filled: map[string]int64{}, fails: map[string]error{},
	}
}

// lock is for the race detector, which does not know the lock files.
func (h *host) lock() (unlock func()) {
	h.mutex.Lock()
	return h.mutex.Unlock
}

func (h *host) did(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	h.done = append(h.done, line)
	word, _, _ := strings.Cut(line, " ")
	return h.fails[word]
}

func (h *host) Name() (string, error) {
	defer h.lock()()
	return h.iqn, h.fails["name"]
}

func (h *host) Attach(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) (iscsi.Device, error) {
	if err := h.Login(ctx, target, chap); err != nil {
		return iscsi.Device{}, err
	}
	return h.Scan(ctx, target)
}

func (h *host) Login(_ context.Context, target iscsi.Target, _ iscsi.CHAP) error {
	defer h.lock()()
	if h.sessions[target.IQN] && !h.hides {
		return nil
	}
	if h.onLogin != nil {
		func() {
			h.mutex.Unlock()
			defer h.mutex.Lock()
			h.onLogin()
		}()
	}
	if err := h.did("login %s", target.Serial); err != nil {
		return err
	}
	h.sessions[target.IQN] = true
	return nil
}

func (h *host) LoggedIn(target iscsi.Target) (bool, error) {
	defer h.lock()()
	return h.sessions[target.IQN], nil
}

func (h *host) Scan(_ context.Context, target iscsi.Target) (iscsi.Device, error) {
	defer h.lock()()
	if !h.sessions[target.IQN] {
		return iscsi.Device{}, iscsi.ErrNoSession
	}
	if disk, found := h.find(target); found {
		return disk, nil
	}
	path := fmt.Sprintf("/dev/sd%c", 'b'+len(h.disks))
	h.disks[path] = foundDisk(path, Attachment{Target: target, SizeGiB: 100})
	return h.disks[path], nil
}

func foundDisk(path string, attachment Attachment) iscsi.Device {
	return iscsi.Device{Path: path, Paths: []string{path}, Target: attachment.Target, Bytes: attachment.SizeGiB * gib}
}

func (h *host) Find(_ context.Context, target iscsi.Target) (iscsi.Device, bool, error) {
	defer h.lock()()
	disk, found := h.find(target)
	return disk, found, h.fails["find"]
}

func (h *host) find(target iscsi.Target) (iscsi.Device, bool) {
	for _, disk := range h.disks {
		if sameDisk(disk.Target, target) {
			return disk, true
		}
	}
	return iscsi.Device{}, false
}

func (h *host) Identify(path string) (iscsi.Device, error) {
	defer h.lock()()
	disk, found := h.disks[path]
	if !found {
		if strings.HasPrefix(path, "/dev/sda") {
			return iscsi.Device{}, iscsi.ErrNotISCSI
		}
		return iscsi.Device{}, fmt.Errorf("identify %s: %w", path, fs.ErrNotExist)
	}
	return disk, nil
}

func (h *host) Detach(_ context.Context, target iscsi.Target) error {
	defer h.lock()()
	if !h.sessions[target.IQN] {
		return nil
	}
	if err := h.did("logout %s", target.Serial); err != nil {
		return err
	}
	delete(h.sessions, target.IQN)
	maps.DeleteFunc(h.disks, func(_ string, disk iscsi.Device) bool { return disk.Target.IQN == target.IQN })
	return nil
}

func (h *host) Resize(_ context.Context, device iscsi.Device, bytes int64) (int64, error) {
	defer h.lock()()
	if err := h.did("rescan %s", device.Path); err != nil {
		return device.Bytes, err
	}
	device.Bytes = bytes
	h.disks[device.Path] = device
	return bytes, nil
}

func (h *host) Inspect(_ context.Context, device string) (mount.Content, error) {
	defer h.lock()()
	content, known := h.content[h.disks[device].Target.Serial]
	if !known {
		content.Blank = true
	}
	return content, h.fails["inspect"]
}

func (h *host) Format(_ context.Context, request mount.FormatRequest) error {
	defer h.lock()()
	if err := h.did("mkfs.%s %s %d", request.Filesystem, request.Device, request.Bytes); err != nil {
		return err
	}
	disk := h.disks[request.Device]
	h.content[disk.Target.Serial] = mount.Content{Filesystem: request.Filesystem}
	h.filled[disk.Target.Serial] = disk.Bytes
	return nil
}

func (h *host) Mount(_ context.Context, device, path, filesystem string, options mount.MountOptions) error {
	defer h.lock()()
	if mounted, found := h.at(path); found {
		if mounted.Device != device {
			return fmt.Errorf("%s is mounted on %s", mounted.Device, path)
		}
		return nil
	}
	if err := h.did("mount %s %s", device, path); err != nil {
		return err
	}
	h.mounts = append(h.mounts, mount.Mount{Device: device, Path: h.real(path), Root: "/", Filesystem: filesystem, ReadOnly: options.ReadOnly})
	return nil
}

func (h *host) Bind(_ context.Context, source, path string, readOnly bool) error {
	defer h.lock()()
	if _, found := h.at(path); found {
		return nil
	}
	if err := h.did("bind %s %s", source, path); err != nil {
		return err
	}
	mounted, _ := h.at(source)
	mounted.Path, mounted.ReadOnly = h.real(path), readOnly
	h.mounts = append(h.mounts, mounted)
	return nil
}

func (h *host) Unmount(_ context.Context, path string) error {
	defer h.lock()()
	if _, found := h.at(path); !found {
		return nil
	}
	if err := h.did("umount %s", path); err != nil {
		return err
	}
	h.mounts = slices.DeleteFunc(h.mounts, func(m mount.Mount) bool { return m.Path == h.real(path) })
	return nil
}

func (h *host) RemoveDir(path string) error {
	defer h.lock()()
	h.removed = append(h.removed, path)
	return h.fails["rmdir"]
}

func (h *host) Released(_ context.Context, device string) error {
	defer h.lock()()
	for _, mounted := range h.mounts {
		if mounted.Device == device {
			return fmt.Errorf("%s is still mounted on %s", device, mounted.Path)
		}
	}
	if h.held > 0 {
		h.held--
		return mount.ErrInUse
	}
	return h.fails["released"]
}

// real is where a path leads: mounts are listed by their real paths.
func (h *host) real(path string) string {
	if rest, linked := strings.CutPrefix(path, kubeletLink); linked {
		return kubeletRoot + rest
	}
	return path
}

func (h *host) At(path string) (mount.Mount, bool, error) {
	defer h.lock()()
	mounted, found := h.at(path)
	return mounted, found, h.fails["mountinfo"]
}

func (h *host) at(path string) (mount.Mount, bool) {
	for _, mounted := range slices.Backward(h.mounts) {
		if mounted.Path == h.real(path) {
			return mounted, true
		}
	}
	return mount.Mount{}, false
}

func (h *host) Same(as mount.Mount) ([]mount.Mount, error) {
	defer h.lock()()
	var same []mount.Mount
	for _, mounted := range h.mounts {
		if mounted.Device == as.Device {
			same = append(same, mounted)
		}
	}
	return same, h.fails["same"]
}

func (h *host) Grow(_ context.Context, device, path, filesystem string) error {
	defer h.lock()()
	disk := h.disks[device]
	if size, known := h.filled[disk.Target.Serial]; !known || size == disk.Bytes {
		return nil
	}
	h.filled[disk.Target.Serial] = disk.Bytes
	return h.did("grow %s %s", filesystem, path)
}

// takeDone returns what was changed since the last look.
func (h *host) takeDone() []string {
	done := h.done
	h.done = nil
	return done
}

// array is a simulated storage cluster within the process: without sockets, so that virtual time holds for it, too.
func array(t *testing.T) *dateratest.Server {
	t.Helper()
	server, err := dateratest.New(dateratest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.WithoutCancel(t.Context()))) })
	return server
}

// node is a driver on a host of its own, connected to the array by the real client.
type node struct {
	*Driver
	*host
	name string
	way  http.RoundTripper // to the array
}

func newNode(t *testing.T, server *dateratest.Server, name string, change ...func(*Config)) *node {
	t.Helper()
	dir := t.TempDir()
	config := defaultConfig()
	config.ManagementIP, config.Username, config.Password, config.Scheme = "sim.test", "admin", "password", "http"
	config.Node, config.Aliases = name, []string{"tlx170.tlx.daterainc.com"}
	config.StateDir, config.RunDir = filepath.Join(dir, "state"), filepath.Join(dir, "run")
	for _, apply := range change {
		apply(&config)
	}
	h := newHost(name)
	n := &node{name: name, host: h, way: server.Transport()}
	n.Driver = &Driver{Config: config, Initiator: h, Mounter: h, Log: slog.New(slog.DiscardHandler),
		OpenArray: func(scheme string, credentials Credentials, tenant string) (Array, error) {
			return datera.New(datera.Config{
				Address: credentials.Server.String(), Scheme: scheme, Username: credentials.Username, Password: credentials.Password,
				Tenant: tenant, APIVersion: config.APIVersion, TokenDir: filepath.Join(config.RunDir, "session"), Transport: n.way,
			})
		}}
	return n
}

// letIn are the IQNs that the array lets in to a volume.
func letIn(t *testing.T, server *dateratest.Server, volume string) []string {
	t.Helper()
	ai, found := server.AppInstance("/root", volume)
	require.True(t, found, "volume %s", volume)
	return append([]string(nil), ai.Allowed...)
}

// over puts something between the driver and the array, and returns what takes it away again.
func (n *node) over(between func(real Array) Array) (away func()) {
	open := n.OpenArray
	n.OpenArray = func(scheme string, credentials Credentials, tenant string) (Array, error) {
		real, err := open(scheme, credentials, tenant)
		return between(real), err
	}
	return func() { n.OpenArray = open }
}

func attachMode(mode AttachMode) func(*Config) { return func(c *Config) { c.Attach = mode } }

// register makes the node known to the array.
func (n *node) registered(t *testing.T) *node {
	t.Helper()
	_, err := n.Register(t.Context(), n.name, "")
	require.NoError(t, err)
	return n
}

// ask makes a call and wants it to succeed.
func (n *node) ask(t *testing.T, args ...string) Reply {
	t.Helper()
	reply := n.Serve(t.Context(), args)
	require.Equal(t, Success, reply.Status, "%s: %s", args[0], reply.Message)
	return reply
}

// refused makes a call that must fail and returns its message.
func (n *node) refused(t *testing.T, args ...string) string {
	t.Helper()
	reply := n.Serve(t.Context(), args)
	require.Equal(t, Failure, reply.Status, "%s was not refused: %s", args[0], reply.Line())
	require.NotEmpty(t, reply.Message)
	return reply.Message
}

const (
	kubeletRoot = "/var/lib/kubelet"
	kubeletLink = "/data/kubelet" // a symbolic link to it
	globalPath  = kubeletRoot + "/" + globalMounts + "/pv-datera-0"
	podPath     = kubeletRoot + "/pods/11111111-2222-3333-4444-555555555555/volumes/datera~iscsi/pv-datera-0"
	otherPod    = kubeletRoot + "/pods/66666666-2222-3333-4444-555555555555/volumes/datera~iscsi/pv-datera-0"
)

var errInjected = errors.New("injected")

// shortly is a context for calls that would wait for an array that is not there.
func shortly(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), 3*time.Second)
}
