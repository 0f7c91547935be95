package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// world is what the calls of a volume's life change: the array, its one volume, and hosts whose calls may be cut.
type world struct {
	Array                   // what the calls below do not use
	life    context.Context // of whom a cut has killed
	end     context.CancelFunc
	mode    AttachMode
	hosts   map[string]*cutHost
	content map[string]mount.Content // of the volume, by serial: all hosts see the same
	filled  map[string]int64

	made       bool
	descr      string
	sizeGiB    int64
	metadata   map[string]string
	initiators map[string]string   // names, by IQN
	groups     map[string][]string // members, by name
	acl        []string            // groups in the volume's ACL policy
	active     map[string]bool     // IQNs with a session
	formats    int
	violations []string
}

func newWorld(dir string, mode AttachMode) *world {
	w := &world{
		mode: mode, hosts: map[string]*cutHost{}, content: map[string]mount.Content{}, filled: map[string]int64{}, metadata: map[string]string{},
		initiators: map[string]string{}, groups: map[string][]string{}, active: map[string]bool{},
	}
	w.life, w.end = context.WithCancel(context.Background())
	for _, name := range []string{"control", "node-a", "node-b"} {
		h := &cutHost{host: newHost(name), world: w}
		h.content, h.filled = w.content, w.filled
		config := defaultConfig()
		config.ManagementIP, config.Username, config.Password, config.Scheme = "tlx170.tlx.daterainc.com", "admin", "password", "http"
		config.Attach, config.Node = mode, name
		config.StateDir, config.RunDir = filepath.Join(dir, name, "state"), filepath.Join(dir, name, "run")
		h.driver = &Driver{Config: config, Initiator: h, Mounter: h, Log: slog.New(slog.DiscardHandler),
			OpenArray: func(string, Credentials, string) (Array, error) { return cutArray{w, h}, nil }}
		w.hosts[name] = h
		if mode == AttachController {
			w.initiators[h.iqn] = InitiatorName(config.Cluster, name)
		}
	}
	return w
}

// memoryDir is a folder in memory where there is such: the journal is synced at each step, which takes a disk most of
// the walk's time.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "walk")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (w *world) violated(format string, args ...any) {
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}

// allows tells whether a host may log in.
func (w *world) allows(iqn string) bool {
	return slices.ContainsFunc(w.acl, func(group string) bool { return slices.Contains(w.groups[group], iqn) })
}

// checkWriters notes when two hosts can write.
func (w *world) checkWriters() {
	var writers []string
	for name, h := range w.hosts {
		writable := func(m mount.Mount) bool { return !m.ReadOnly }
		if w.active[h.iqn] && slices.ContainsFunc(h.mounts, writable) {
			writers = append(writers, name)
		}
	}
	if len(writers) > 1 {
		w.violated("%v write at the same time", writers)
	}
}

// checkAccess notes when two hosts may log in although no call is under way.
func (w *world) checkAccess() {
	var allowed []string
	for name, h := range w.hosts {
		if w.allows(h.iqn) {
			allowed = append(allowed, name)
		}
	}
	if len(allowed) > 1 {
		w.violated("%v have access at the same time", allowed)
	}
}

// ending is how a call is cut at a step.
type ending string

const (
	killed          ending = "killed before"
	killedAfter     ending = "killed after"
	failed          ending = "failed"
	failedBehind    ending = "done, but failed" // the answer is lost
	overtaken       ending = "overtaken"        // before the step a rival goes all his way
	overtakenKilled ending = "overtaken, and killed after"
)

// cut is where a call ends.
type cut struct {
	at    int
	how   ending
	rival func()
	steps []string
	died  chan struct{}
}

// hit tells whether the call came to where it was to be cut.
func (c *cut) hit() bool { return c.at > 0 && len(c.steps) >= c.at }

// step makes one step of a host's call, or cuts the call there. A call that is killed stays where it is until the world
// ends: unlike one that panics it undoes nothing.
func step[T any](h *cutHost, name string, do func() (T, error)) (T, error) {
	c := h.cut
	c.steps = append(c.steps, name)
	if len(c.steps) != c.at {
		return do()
	}
	var none T
	switch c.how {
	case failed:
		return none, errInjected
	case failedBehind:
		_, _ = do()
		return none, errInjected
	case killedAfter:
		_, _ = do()
	case overtaken:
		c.rival()
		return do()
	case overtakenKilled:
		c.rival()
		_, _ = do()
	}
	close(c.died)
	<-h.world.life.Done()
	runtime.Goexit()
	return none, nil
}

func step0(h *cutHost, name string, do func() error) error {
	_, err := step(h, name, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// cutHost is a host that obeys the array's access list, with its driver.
type cutHost struct {
	*host
	world  *world
	driver *Driver
	cut    *cut
}

// run makes a call, cut at a step (0: not at all). It is not answered when it was killed.
func (h *cutHost) run(c *cut, args ...string) (reply Reply) {
	c.died = make(chan struct{})
	h.cut = c
	answered := make(chan Reply, 1)
	go func() { answered <- h.driver.Serve(h.world.life, args) }()
	select {
	case reply = <-answered:
	case <-c.died:
		h.dropLocks()
		reply = Reply{Status: Failure, Message: "killed"}
	}
	h.world.checkWriters()
	return reply
}

// dropLocks does what the kernel does for a process that has died.
func (h *cutHost) dropLocks() { _ = os.RemoveAll(filepath.Join(h.driver.Config.RunDir, "lock")) }

// reboot loses what is in memory and, if wanted, the files of the driver, too.
func (h *cutHost) reboot(losesState bool) {
	h.disks, h.sessions, h.mounts = map[string]iscsi.Device{}, map[string]bool{}, nil
	delete(h.world.active, h.iqn)
	_ = os.RemoveAll(h.driver.Config.RunDir)
	if losesState {
		_ = os.RemoveAll(h.driver.Config.StateDir)
	}
	long := time.Unix(1_000_000_000, 0) // before the start of this machine
	for _, key := range h.driver.journal().used() {
		_ = os.Chtimes(h.driver.journal().inUse(key), long, long)
	}
}

var errNoSession = errors.New("input/output error")

func (h *cutHost) Attach(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) (iscsi.Device, error) {
	return step(h, "log in", func() (iscsi.Device, error) {
		if !h.world.allows(h.iqn) {
			return iscsi.Device{}, iscsi.ErrRefused
		}
		h.world.active[h.iqn] = true
		return h.host.Attach(ctx, target, chap)
	})
}

func (h *cutHost) Login(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) error {
	return step0(h, "log in without a LUN", func() error {
		if !h.world.allows(h.iqn) {
			return iscsi.ErrRefused
		}
		h.world.active[h.iqn] = true
		return h.host.Login(ctx, target, chap)
	})
}

func (h *cutHost) LoggedIn(target iscsi.Target) (bool, error) {
	in, err := h.host.LoggedIn(target)
	return in && h.world.active[h.iqn], err
}

func (h *cutHost) Scan(ctx context.Context, target iscsi.Target) (iscsi.Device, error) {
	return step(h, "scan", func() (iscsi.Device, error) {
		if !h.world.active[h.iqn] {
			return iscsi.Device{}, iscsi.ErrNoSession
		}
		return h.host.Scan(ctx, target)
	})
}

func (h *cutHost) Detach(ctx context.Context, target iscsi.Target) error {
	return step0(h, "log out", func() error {
		err := h.host.Detach(ctx, target)
		if len(h.sessions) == 0 {
			delete(h.world.active, h.iqn)
		}
		return err
	})
}

func (h *cutHost) Inspect(ctx context.Context, device string) (mount.Content, error) {
	return step(h, "inspect", func() (mount.Content, error) {
		if !h.world.active[h.iqn] {
			return mount.Content{}, errNoSession
		}
		return h.host.Inspect(ctx, device)
	})
}

func (h *cutHost) Format(ctx context.Context, request mount.FormatRequest) error {
	return step0(h, "mkfs", func() error {
		if !h.world.active[h.iqn] {
			return errNoSession
		}
		if h.world.formats++; h.world.formats > 1 {
			h.world.violated("mkfs ran %d times", h.world.formats)
		}
		return h.host.Format(ctx, request)
	})
}

func (h *cutHost) Mount(ctx context.Context, device, path, filesystem string, options mount.MountOptions) error {
	return step0(h, "mount", func() error {
		if !h.world.active[h.iqn] {
			return errNoSession
		}
		err := h.host.Mount(ctx, device, path, filesystem, options)
		h.world.checkWriters()
		return err
	})
}

func (h *cutHost) Bind(ctx context.Context, source, path string, readOnly bool) error {
	return step0(h, "bind", func() error { return h.host.Bind(ctx, source, path, readOnly) })
}

func (h *cutHost) Unmount(ctx context.Context, path string) error {
	return step0(h, "unmount", func() error { return h.host.Unmount(ctx, path) })
}

func (h *cutHost) Released(ctx context.Context, device string) error {
	return step0(h, "wait for its release", func() error { return h.host.Released(ctx, device) })
}

func (h *cutHost) RemoveDir(path string) error {
	return step0(h, "rmdir", func() error { return h.host.RemoveDir(path) })
}

func (h *cutHost) Resize(ctx context.Context, device iscsi.Device, bytes int64) (int64, error) {
	return step(h, "rescan", func() (int64, error) { return h.host.Resize(ctx, device, h.world.sizeGiB*gib) })
}

func (h *cutHost) Grow(ctx context.Context, device, path, filesystem string) error {
	return step0(h, "grow", func() error { return h.host.Grow(ctx, device, path, filesystem) })
}

// left lists what a host still has of the volume.
func (h *cutHost) left() []string {
	var left []string
	for target := range h.sessions {
		left = append(left, "session "+target)
	}
	for path := range h.disks {
		left = append(left, "disk "+path)
	}
	for _, mounted := range h.mounts {
		left = append(left, "mount "+mounted.Path)
	}
	for _, dir := range []string{h.driver.Config.StateDir, h.driver.intentDir()} {
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				left = append(left, "file "+path)
			}
			return nil
		})
	}
	return left
}
