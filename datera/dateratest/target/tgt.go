package target

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// TGT serves by a tgtd of its own, in user space, so that it works on any kernel.
//
// tgtd keeps LUN 0 for a controller, so that volumes begin at 1, and has its portals in common for all targets.
type TGT struct {
	tools    tools
	daemon   *daemon
	dir      string
	targets  map[string]*served
	accounts map[string]*account // by user name: tgtd has one password for a user, whatever the target
	portals  map[netip.AddrPort]bool
	lastTID  int
}

// served is a target as tgtd has it.
type served struct {
	Target
	tid int
}

type account struct {
	password string
	targets  []string // IQNs
}

// tools are how TGT reaches the world; tests have others.
type tools struct {
	run   runner
	start func(ctx context.Context, dir string, portals []netip.AddrPort, ready func(context.Context) error) (*daemon, error)
}

// NewTGT makes a back end; Open makes it ready.
func NewTGT() *TGT { return newTGT(tools{run, startDaemon}) }

func newTGT(t tools) *TGT {
	return &TGT{tools: t, targets: map[string]*served{}, accounts: map[string]*account{}, portals: map[netip.AddrPort]bool{}}
}

// Name is "tgt".
func (*TGT) Name() string { return "tgt" }

// FirstLUN is 1.
func (*TGT) FirstLUN() int { return 1 }

// Open ends the tgtd that an earlier run left in the folder and starts a new one.
func (g *TGT) Open(ctx context.Context, dir, _ string, portals []netip.AddrPort) error {
	g.dir = dir
	ready := func(ctx context.Context) error { return g.admin(ctx, "system", "show") }
	d, err := g.tools.start(ctx, dir, portals, ready)
	if err != nil {
		return err
	}
	g.daemon = d
	for _, p := range portals {
		g.portals[p] = true
	}
	return nil
}

// Close removes all targets and ends tgtd.
func (g *TGT) Close(ctx context.Context) error {
	if g.daemon == nil {
		return nil
	}
	var failed []error
	for _, iqn := range sortedIQNs(g.targets) {
		failed = append(failed, g.Remove(ctx, iqn))
	}
	_ = g.admin(ctx, "system", "delete") // the polite way; what follows does not need it
	return errors.Join(append(failed, g.daemon.stop(ctx))...)
}

func sortedIQNs(m map[string]*served) []string {
	iqns := make([]string, 0, len(m))
	for iqn := range m {
		iqns = append(iqns, iqn)
	}
	slices.Sort(iqns)
	return iqns
}

// admin runs one tgtadm command.
func (g *TGT) admin(ctx context.Context, mode, operation string, args ...string) error {
	_, err := g.show(ctx, mode, operation, args...)
	return err
}

func (g *TGT) show(ctx context.Context, mode, operation string, args ...string) (string, error) {
	out, err := g.tools.run(ctx, g.dir, []string{"TGT_IPC_SOCKET=" + socketName}, "tgtadm",
		append([]string{"--lld", "iscsi", "--mode", mode, "--op", operation}, args...)...)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", operation, mode, err)
	}
	return out, nil
}

// socketName is relative, as a Unix socket's name must be short and the folder's may be long; tgtd adds ".0".
const (
	socketName = "tgtd.socket"
	pidFile    = "tgtd.pid"
	logFile    = "tgtd.log"
)

// daemon is a running tgtd.
type daemon struct {
	process *os.Process
	dir     string
	gone    chan struct{}
}

func startDaemon(ctx context.Context, dir string, portals []netip.AddrPort, ready func(context.Context) error) (*daemon, error) {
	tgtd, err := find("tgtd", "tgt")
	if err != nil {
		return nil, err
	}
	return launch(ctx, tgtd, dir, portals, ready)
}

// launch starts tgtd in a folder, in place of one that runs there, and waits until it is ready.
func launch(ctx context.Context, tgtd, dir string, portals []netip.AddrPort, ready func(context.Context) error) (*daemon, error) {
	if err := endLeftover(ctx, dir); err != nil {
		return nil, fmt.Errorf("end the tgtd of an earlier run: %w", err)
	}
	var listen []string
	for _, p := range portals {
		listen = append(listen, "portal="+p.String())
	}
	log, err := os.Create(filepath.Join(dir, logFile))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(tgtd, "-f", "--iscsi", strings.Join(listen, ","))
	cmd.Dir, cmd.Env = dir, []string{"TGT_IPC_SOCKET=" + socketName, "LC_ALL=C", "PATH=" + searchPath}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the simulator, which then ends tgtd in order
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tgtd: %w", err)
	}
	d := &daemon{process: cmd.Process, dir: dir, gone: make(chan struct{})}
	go func() {
		defer close(d.gone)
		_ = cmd.Wait()
	}()
	if err := os.WriteFile(filepath.Join(dir, pidFile), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, errors.Join(err, d.stop(ctx))
	}
	if err := d.await(ctx, ready); err != nil {
		return nil, errors.Join(err, d.stop(ctx))
	}
	return d, nil
}

// await waits until tgtd takes commands and listens on all portals.
func (d *daemon) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		select {
		case <-d.gone:
			return struct{}{}, backoff.Permanent(errors.New("it ended"))
		default:
			return struct{}{}, ready(ctx)
		}
	}, pollOptions()...)
	said := d.said()
	if err != nil {
		return fmt.Errorf("start tgtd: %w; it said: %s", err, said)
	}
	if strings.Contains(said, "Address already in use") || strings.Contains(said, "Cannot assign requested address") {
		return fmt.Errorf("start tgtd: it cannot listen on all portals; stop the other iSCSI target or choose other portals; it said: %s", said)
	}
	return nil
}

// said is tgtd's log without what it always complains about.
func (d *daemon) said() string {
	text, err := os.ReadFile(filepath.Join(d.dir, logFile))
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(line string) bool {
		return strings.Contains(line, "RDMA") || strings.Contains(line, "timer_fd") || strings.Contains(line, "signalfd")
	})
	return strings.Join(lines, "; ")
}

func pollOptions() []backoff.RetryOption {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval, b.RandomizationFactor = 10*time.Millisecond, 1.5, 200*time.Millisecond, 0
	return []backoff.RetryOption{backoff.WithBackOff(b), backoff.WithMaxElapsedTime(0)}
}

// stop kills: tgtd does not end at SIGTERM, and has nothing of its own to save.
func (d *daemon) stop(ctx context.Context) error {
	err := d.process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-d.gone:
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("end tgtd: %w", ctx.Err()))
	}
	for _, name := range []string{pidFile, socketName + ".0", socketName + ".0.lock"} {
		if failed := os.Remove(filepath.Join(d.dir, name)); failed != nil && !errors.Is(failed, os.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// endLeftover kills the tgtd that runs in the folder, if the process of the pid file still is that.
func endLeftover(ctx context.Context, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !isOurs(pid, dir) {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		if isOurs(pid, dir) {
			return struct{}{}, fmt.Errorf("process %d does not end", pid)
		}
		return struct{}{}, nil
	}, pollOptions()...)
	return err
}

// isOurs tells by its working folder whether a process is the tgtd of this folder. A dead one has none.
func isOurs(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || strings.TrimSpace(string(name)) != "tgtd" {
		return false
	}
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	return err == nil && cwd == dir
}
