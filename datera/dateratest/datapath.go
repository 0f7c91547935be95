package dateratest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"datera-flexvolume/datera/dateratest/target"
)

const (
	// openTimeout is for loading modules or starting a daemon, reconcileTimeout for one round of changes.
	openTimeout      = 30 * time.Second
	reconcileTimeout = time.Minute
	// retryAfter is when a target that could not be made is tried again.
	retryAfter = 200 * time.Millisecond
)

// dataPath brings the iSCSI targets in line with the cluster. Without a back end it only keeps the sessions that
// tests pretend.
type dataPath struct {
	backend target.Backend
	dir     string
	life    context.Context // ends with the server
	end     context.CancelFunc
	copies  sync.WaitGroup

	round   sync.Mutex // one reconciliation at a time; guards applied and alarm
	applied map[string]target.Target
	alarm   *time.Timer

	mu       sync.Mutex // guards what follows
	failures map[string]string
	serving  map[string]bool // IQNs of the targets that are there
	pretence map[string][]string
	copying  map[string]bool // files that are being written
}

func newDataPath(o Options) *dataPath {
	d := &dataPath{backend: o.Backend, dir: o.StateDir, applied: map[string]target.Target{}, failures: map[string]string{},
		serving: map[string]bool{}, pretence: map[string][]string{}, copying: map[string]bool{}}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// startDataPath opens the back end and makes all targets.
func (s *Server) startDataPath() error {
	d := s.data
	if d.backend == nil {
		return nil
	}
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.life, openTimeout)
	defer cancel()
	if err := d.backend.Open(ctx, d.dir, s.cluster.iqnPrefix(), s.options.Portals); err != nil {
		return errors.Join(err, d.backend.Close(ctx))
	}
	s.reconcile(d.life)
	return nil
}

// close ends what runs in the background and removes all targets.
func (d *dataPath) close(ctx context.Context) error {
	d.end()
	d.copies.Wait()
	d.round.Lock()
	defer d.round.Unlock()
	if d.alarm != nil {
		d.alarm.Stop()
	}
	if d.backend == nil {
		return nil
	}
	return d.backend.Close(ctx)
}

// liveSessions asks the back end for sessions when the answer to a call can show them.
func (s *Server) liveSessions(ctx context.Context, path string) map[string][]string {
	if s.data.backend == nil || !strings.HasPrefix(path, "/app_instances") {
		return nil
	}
	sessions, err := s.data.backend.Sessions(ctx)
	if err != nil {
		s.log.Warn("read the iSCSI sessions", "error", err)
	}
	return sessions
}

// reconcile makes the targets be what the state says now, and sees to it that this happens again when something
// becomes available later. Whoever gives up waiting for an answer does not stop it.
func (s *Server) reconcile(ctx context.Context) {
	d := s.data
	if d.backend == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
	defer cancel()
	d.round.Lock()
	defer d.round.Unlock()
	if d.life.Err() != nil {
		return
	}
	s.mu.Lock()
	now := s.now()
	wanted, next := s.wantedTargets(now)
	if end := s.faults.portalsUntil(now); !end.IsZero() {
		next = earlier(next, end)
	}
	files := s.cluster.files()
	s.mu.Unlock()

	ok := s.removeTargets(ctx, wanted)
	for _, t := range wanted {
		ok = s.applyTarget(ctx, t) && ok
	}
	if !ok {
		next = earlier(next, now.Add(retryAfter))
	}
	if err := d.removeOrphans(files); err != nil {
		s.log.Warn("remove backing files", "error", err)
	}
	s.startCopies()
	d.wakeAt(next, now, func() { s.reconcile(d.life) })
}

// wakeAt sets the alarm; the caller holds d.round.
func (d *dataPath) wakeAt(next, now time.Time, wake func()) {
	if d.alarm != nil {
		d.alarm.Stop()
		d.alarm = nil
	}
	if !next.IsZero() {
		d.alarm = time.AfterFunc(next.Sub(now), wake)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// wantedTargets are the storage instances that are online and available, and when that will change by itself.
func (s *Server) wantedTargets(now time.Time) (wanted []target.Target, next time.Time) {
	for _, t := range s.cluster.Tenants {
		for _, ai := range t.AppInstances {
			for _, si := range ai.Storage {
				if si.AdminState == offline || si.Service == "object" || len(si.Volumes) == 0 || slices.ContainsFunc(si.Volumes, func(v *volume) bool { return v.CopyFrom != "" }) {
					continue
				}
				for _, at := range append([]time.Time{si.Ready.At}, resizes(si)...) {
					if now.Before(at) {
						next = earlier(next, at)
					}
				}
				if si.Ready.state(now) == "available" {
					wanted = append(wanted, s.wantedTarget(t, si, now))
				}
			}
		}
	}
	return wanted, next
}

func resizes(si *storageInstance) []time.Time {
	var at []time.Time
	for _, v := range si.Volumes {
		at = append(at, v.ResizedAt)
	}
	return at
}

func (s *Server) wantedTarget(t *tenant, si *storageInstance, now time.Time) target.Target {
	out := target.Target{IQN: si.IQN, AllowAll: si.AccessControl == allowAll, Initiators: s.allowed(t, si)}
	for _, ip := range si.IPs {
		a, err := netip.ParseAddr(ip)
		if err == nil {
			out.Portals = append(out.Portals, target.Portal{Address: netip.AddrPortFrom(a, si.Port), Down: s.faults.portalDown(a, now)})
		}
	}
	for _, v := range si.Volumes {
		out.LUNs = append(out.LUNs, target.LUN{Serial: v.UUID, File: filepath.Join(s.data.dir, volumeFile(v)), Size: int64(v.sizeAt(now)) << 30})
	}
	if si.Auth.Type != "none" {
		out.Auth.User, out.Auth.Password = si.Auth.TargetUser, si.Auth.TargetPassword
	}
	if si.Auth.Type == "mchap" {
		out.Auth.MutualUser, out.Auth.MutualPassword = si.Auth.InitiatorUser, si.Auth.InitiatorPassword
	}
	return out
}

func (s *Server) removeTargets(ctx context.Context, wanted []target.Target) bool {
	ok := true
	for iqn := range s.data.applied {
		if slices.ContainsFunc(wanted, func(t target.Target) bool { return t.IQN == iqn }) {
			continue
		}
		err := s.data.backend.Remove(ctx, iqn)
		if err == nil {
			delete(s.data.applied, iqn)
		}
		ok = s.noteOutcome(iqn, false, err) && ok
	}
	return ok
}

func (s *Server) applyTarget(ctx context.Context, t target.Target) bool {
	if reflect.DeepEqual(s.data.applied[t.IQN], t) {
		return true
	}
	err := makeFiles(t.LUNs)
	if err == nil {
		s.data.applied[t.IQN] = target.Target{IQN: t.IQN} // whatever comes of it, there may be something to remove
		err = s.data.backend.Apply(ctx, t)
	}
	if err == nil {
		s.data.applied[t.IQN] = t
	}
	return s.noteOutcome(t.IQN, true, err)
}

// noteOutcome keeps whether a target is there, and the reason why it is not as it should be, for op_state and causes.
func (s *Server) noteOutcome(iqn string, serves bool, err error) bool {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	if err == nil {
		s.data.serving[iqn] = serves
		delete(s.data.failures, iqn)
		return true
	}
	s.data.failures[iqn] = err.Error()
	s.log.Error("data path", "error", err)
	return false
}

// failure is why the target of an IQN does not work, "" if it does.
func (d *dataPath) failure(iqn string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failures[iqn]
}

// waits reports whether the target of an IQN is still to be made.
func (d *dataPath) waits(iqn string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.backend != nil && !d.serving[iqn]
}

// faultsChanged brings the portals in line.
func (s *Server) faultsChanged() {
	if s.data.backend != nil && s.cluster != nil {
		s.reconcile(s.data.life)
	}
}

func (d *dataPath) firstLUN() int {
	if d.backend == nil {
		return 0
	}
	return d.backend.FirstLUN()
}

func (d *dataPath) pretended(iqn string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pretence[iqn]
}

func (d *dataPath) pretend(iqn string, hosts []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pretence[iqn] = slices.Clone(hosts)
}

// endPretence ends the sessions of hosts that may not be logged in any more. It runs after each change, so that a
// host that is let in again later has to log in again; the caller holds s.mu.
func (s *Server) endPretence() {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	for iqn, hosts := range s.data.pretence {
		t, si := s.storageByIQN(iqn)
		s.data.pretence[iqn] = slices.DeleteFunc(hosts, func(host string) bool {
			return si == nil || si.AdminState == offline || si.AccessControl == denyAll && !slices.Contains(s.allowed(t, si), host)
		})
	}
}

// changes tells whether a successful call changed the state.
func (c *call) changes() bool {
	return c.method != http.MethodGet && c.path != "/login" && c.path != "/logout"
}

// capacityInUse is what the backing file takes, rounded up to GiB; or what a test said, without one.
func (c *call) capacityInUse(v *volume) int {
	used := v.CapacityInUse
	if c.data.backend != nil {
		used = int((allocated(filepath.Join(c.data.dir, volumeFile(v))) + 1<<30 - 1) >> 30)
	}
	return used + c.faults.capacity
}

func describeCopy(file string, err error) string {
	return fmt.Sprintf("copy the content from %s: %v", file, err)
}
