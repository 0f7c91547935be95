package driver

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// door is the array's data path: it lets in whom the ACL names, and nobody else, and drops who loses its claim. All who
// come in see the same content.
type door struct {
	server  *dateratest.Server
	mutex   sync.Mutex
	inside  map[string]map[string]bool // IQNs with a session, by target
	content map[string]mount.Content   // by serial
}

func newDoor(server *dateratest.Server) *door {
	return &door{server: server, inside: map[string]map[string]bool{}, content: map[string]mount.Content{}}
}

// guest is a node in mode none that comes in by the door.
type guest struct {
	*host
	*door
	before func(step string) error
}

func (d *door) guest(t *testing.T, name string, before func(step string) error, change ...func(*Config)) *node {
	n := newNode(t, d.server, name, append(change, attachMode(AttachNone), inMemory(t), func(c *Config) { c.Node = name })...)
	n.host.content = d.content
	comes := guest{n.host, d, before}
	n.Driver.Initiator, n.Driver.Mounter = comes, comes
	return n
}

// used lets the node use a volume for a while.
func (n *node) used(t *testing.T, volume string) {
	t.Helper()
	n.ask(t, "mount", podPath, optionsUnder("pv-datera-0", volume))
	n.ask(t, "unmount", podPath)
}

// leaveClaimTo leaves what another node's call that was killed leaves: a claim without a session, where this node's would be.
func (n *node) leaveClaimTo(t *testing.T, server *dateratest.Server, volume, name string) (iqn string) {
	t.Helper()
	other := newHost(name)
	array := mustArray(t, n)
	_, err := array.RegisterInitiator(t.Context(), other.iqn, InitiatorName(n.Config.Cluster, name))
	require.NoError(t, err)
	_, err = array.AddMember(t.Context(), groupName(n.Config.Cluster, volume, idOf(t, server, volume), "rw"), other.iqn)
	require.NoError(t, err)
	return other.iqn
}

func (g guest) Login(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) error {
	if err := g.before("login"); err != nil {
		return err
	}
	if err := g.enter(g.iqn, target.IQN); err != nil {
		return err
	}
	return g.host.Login(ctx, target, chap)
}

// LoggedIn is what the kernel knows: the array ends the session of who loses its claim.
func (g guest) LoggedIn(target iscsi.Target) (bool, error) {
	in, err := g.host.LoggedIn(target)
	return in && g.in(g.iqn, target.IQN), err
}

func (g guest) Scan(ctx context.Context, target iscsi.Target) (iscsi.Device, error) {
	if in, err := g.LoggedIn(target); !in || err != nil {
		return iscsi.Device{}, iscsi.ErrNoSession
	}
	return g.host.Scan(ctx, target)
}

func (g guest) Detach(ctx context.Context, target iscsi.Target) error {
	if err := g.before("logout"); err != nil {
		return err
	}
	if err := g.leave(g.iqn, target.IQN); err != nil {
		return err
	}
	return g.host.Detach(ctx, target)
}

func (g guest) Inspect(ctx context.Context, device string) (mount.Content, error) {
	g.door.mutex.Lock()
	defer g.door.mutex.Unlock()
	return g.host.Inspect(ctx, device)
}

func (g guest) Format(ctx context.Context, request mount.FormatRequest) error {
	g.door.mutex.Lock()
	defer g.door.mutex.Unlock()
	return g.host.Format(ctx, request)
}

func (g guest) Unmount(ctx context.Context, path string) error {
	if err := g.before("umount"); err != nil {
		return err
	}
	return g.host.Unmount(ctx, path)
}

// enter starts a session, if the array lets the initiator in.
func (d *door) enter(iqn, target string) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	ai, found := d.behind(target)
	if !found {
		return iscsi.ErrUnreachable
	}
	if !slices.Contains(ai.Allowed, iqn) {
		return iscsi.ErrRefused
	}
	if d.inside[target] == nil {
		d.inside[target] = map[string]bool{}
	}
	d.inside[target][iqn] = true
	return d.tell(ai)
}

// in reports whether an initiator that came in is still let in.
func (d *door) in(iqn, target string) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	ai, found := d.behind(target)
	return found && d.inside[target][iqn] && slices.Contains(ai.Allowed, iqn)
}

func (d *door) leave(iqn, target string) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.inside[target], iqn)
	if ai, found := d.behind(target); found {
		return d.tell(ai)
	}
	return nil
}

func (d *door) behind(target string) (dateratest.AppInstance, bool) {
	for _, name := range d.server.AppInstances("/root") {
		if ai, found := d.server.AppInstance("/root", name); found && ai.IQN == target {
			return ai, true
		}
	}
	return dateratest.AppInstance{}, false
}

// tell makes the array know its sessions: of those who are allowed.
func (d *door) tell(ai dateratest.AppInstance) error {
	var active []string
	for iqn := range d.inside[ai.IQN] {
		if slices.Contains(ai.Allowed, iqn) {
			active = append(active, iqn)
		}
	}
	return d.server.SetActiveInitiators(ai.Name, active...)
}
