package access_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

const volumeName = "vol-1"

// A world is a simulated array with one volume, the callers that want it, and what iSCSI makes of it. One request of one
// caller is carried out at a time.
type world struct {
	scenario
	*array
	alive context.Context
	end   context.CancelFunc

	processes sync.WaitGroup

	callers []*caller
	kernels []*kernel

	mutex    sync.Mutex
	free     bool          // the requests wait for nobody any more
	over     bool          // whoever makes a request is killed
	wake     chan struct{} // somebody waits at a gate, or has ended
	late     *late
	used     budget
	groups   map[string]bool   // all names that were ever used
	lives    map[string]string // of UUIDs of volumes: a short name, and of what stands for them in names of groups
	sessions map[string]string // by IQN: the UUID of the volume that it is logged in to
	broken   map[string]bool   // lines, by IQN
	shown    []string          // sessions as the array shows them
	deleted  bool              // the scenario has a delete
	trace    []string
	wrong    string // what was violated
}

// late is a request that its caller has given up and that is carried out all the same.
type late struct {
	label   string
	request *http.Request
}

// budget is how often things may happen that are rare.
type budget struct{ kills, losses, lates, breaks, crashes int }

// A scenario is who does what, and what may befall them.
type scenario struct {
	who      string // callers: "0A" is PersistentVolume 0 on node A, "1Br" 1 on node B read-only, "0B/x" of cluster x, "D" a delete
	whole    bool   // all orders are walked, whatever the flag says
	none     bool   // attach mode none
	oneHost  bool   // all calls are made on one host, as by one kube-controller-manager
	budget   budget
	lazy     bool // the array ends a session some time after its claim
	unseen   bool // the array shows sessions, and that they have ended, some time later
	blind    bool // it shows no sessions
	replaced bool // another client takes the groups out of the ACL policy
	late     bool // it carries out a request that was given up at any time, not only soon
	force    bool // detach is called while the node still uses the volume
	repeats  bool // attach is called again after success
	returns  bool // attach is called again after detach, successful or not, while the node still uses the volume
	moves    bool // all calls of a caller but the first are made on another host
	tries    int  // so often an attach that failed is called; 0: once
	holds    bool // nobody leaves
	anyAfter bool // whatever may follow a killed call follows; else the call is repeated
}

func (s scenario) String() string { return s.who }

// An array is a simulated one. Making it takes most of the time of an order, so many have it in turn.
type array struct {
	server *dateratest.Server
	client *datera.Client
	way    http.RoundTripper
	dir    string // of the hosts' files
	served int
}

func newArray(t *testing.T) *array {
	t.Helper()
	server, err := dateratest.New(dateratest.Options{})
	require.NoError(t, err)
	dir, err := os.MkdirTemp(memory(), "orders-")
	require.NoError(t, err)
	a := &array{server: server, way: server.Transport(), dir: dir}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	a.client, err = datera.New(datera.Config{Address: "sim.test", Scheme: "http", Username: "admin", Password: "password", Tenant: "/root", APIVersion: "2.2", Transport: a})
	require.NoError(t, err)
	for _, node := range []string{"A", "B", "C", "X"} {
		for _, cluster := range []string{"kubernetes", "x"} {
			require.NoError(t, server.RegisterInitiator(hostIQN(node, cluster), driver.InitiatorName(cluster, nodeName(node))))
		}
	}
	_, err = a.client.Tenants(t.Context()) // logs in
	require.NoError(t, err)
	return a
}

// arrays gives out arrays: each for some orders, as they grow slow.
type arrays struct{ last *array }

func (a *arrays) next(t *testing.T) *array {
	t.Helper()
	if a.last == nil || a.last.served == 50 {
		a.last = newArray(t)
	}
	a.last.served++
	return a.last
}

func newWorld(t *testing.T, a *array, s scenario) *world {
	t.Helper()
	w := &world{
		scenario: s, array: a, wake: make(chan struct{}, 1), deleted: strings.Contains(s.who, "D"),
		groups: map[string]bool{}, lives: map[string]string{}, sessions: map[string]string{}, broken: map[string]bool{},
	}
	w.alive, w.end = context.WithCancel(t.Context())
	_, err := a.server.CreateAppInstance(volumeName, 10)
	require.NoError(t, err)
	for _, word := range strings.Split(s.who, ",") {
		w.callers = append(w.callers, newCaller(w, word))
	}
	w.settle()
	return w
}

func (w *world) close(t *testing.T) {
	t.Helper()
	w.end()
	w.processes.Wait()
	for _, file := range w.files() {
		require.NoError(t, os.Remove(file))
	}
	if _, found := w.volume(); found {
		w.do(t, http.MethodPut, "/app_instances/"+volumeName, map[string]any{"admin_state": "offline", "force": true})
		w.do(t, http.MethodDelete, "/app_instances/"+volumeName, nil)
	}
	for name := range w.groups {
		if _, exists := w.server.InitiatorGroup("/root", name); exists {
			w.do(t, http.MethodDelete, "/initiator_groups/"+name, nil)
		}
	}
}

// do changes the array as an administrator.
func (w *world) do(t *testing.T, method, path string, body any) {
	t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	_, err := w.server.Do("/root", method, path, body)
	require.NoError(t, err)
}

// memory is a folder that costs no disk.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func nodeName(node string) string { return "node-" + strings.ToLower(node) }

func hostIQN(node, cluster string) string {
	return "iqn.1993-08.org.debian:01:" + cluster + "-" + strings.ToLower(node)
}

// driver is a process of the driver: each call has its own.
func (w *world) driver(c *caller) *driver.Driver {
	config, err := driver.LoadConfig(nil, func(string) string { return "" })
	if err != nil {
		panic(err)
	}
	host := w.host(c)
	config.ManagementIP, config.Username, config.Password, config.Scheme = "sim.test", "admin", "password", "http"
	config.Cluster, config.Node = c.cluster, nodeName(c.node)
	config.StateDir, config.RunDir = filepath.Join(w.dir, host, "state"), filepath.Join(w.dir, host, "run")
	if w.none {
		config.Attach = driver.AttachNone
	}
	return &driver.Driver{
		Config: config, Initiator: c.kernel, Mounter: c.kernel, Log: slog.New(slog.DiscardHandler),
		OpenArray: func(string, driver.Credentials, string) (driver.Array, error) { return w.client, nil },
	}
}

// kernelOf is that of a node, which several callers may have in common.
func (w *world) kernelOf(iqn string) *kernel {
	for _, k := range w.kernels {
		if k.iqn == iqn {
			return k
		}
	}
	k := &kernel{world: w, iqn: iqn}
	w.kernels = append(w.kernels, k)
	return k
}

func (w *world) volume() (dateratest.AppInstance, bool) {
	return w.server.AppInstance("/root", volumeName)
}

// letsIn reports whether the array lets an initiator log in.
func (w *world) letsIn(iqn string) (id string, yes bool) {
	ai, found := w.volume()
	return ai.ID, found && ai.AdminState == datera.AdminOnline && slices.Contains(ai.Allowed, iqn) && !w.broken[iqn]
}

// settle is what the array and the initiators do by themselves: it ends sessions of initiators that it lets in no more, and
// who is still logged in comes back as soon as it is let in.
func (w *world) settle() {
	ai, found := w.volume()
	for iqn, id := range w.sessions {
		if !found || id != ai.ID || w.broken[iqn] || !w.lazy && !slices.Contains(ai.Allowed, iqn) {
			delete(w.sessions, iqn)
		}
	}
	for _, k := range w.kernels {
		if id, yes := w.letsIn(k.iqn); yes && k.in == id {
			w.sessions[k.iqn] = id
		}
	}
	if found {
		if w.lives[ai.ID] == "" {
			sum := sha256.Sum256([]byte(ai.ID))
			w.lives[ai.ID] = fmt.Sprintf("volume#%d", len(w.lives)/2+1)
			w.lives[hex.EncodeToString(sum[:6])] = fmt.Sprintf("#%d", len(w.lives)/2+1)
		}
		if !w.unseen {
			w.shown = slices.Sorted(maps.Keys(w.sessions))
		}
		_ = w.server.SetActiveInitiators(volumeName, w.shown...)
	}
	w.look()
}

// look finds what must never be.
func (w *world) look() {
	ai, found := w.volume()
	mounted, writes := 0, false
	for _, k := range w.kernels {
		if k.mounted && k.live() {
			mounted, writes = mounted+1, writes || k.writes
		}
		if k.mounted && k.dirty {
			w.violated("%s mounted what it had scanned beside a writer", k.iqn)
		}
	}
	for _, c := range w.callers {
		if c.told == "" {
			continue
		}
		for _, other := range w.callers {
			if (other.iqn != c.iqn || other.pv != c.pv) && other.told != "" && (!other.readOnly || !c.readOnly) {
				w.violated("%s and %s were both told that they have the volume", c.name, other.name)
			}
		}
		switch {
		case !found || ai.ID != c.told:
			w.violated("the volume was deleted under %s", c.name)
		case ai.AdminState != datera.AdminOnline && !w.deleted:
			w.violated("the volume is offline, and %s was told that it has it", c.name)
		case !slices.Contains(ai.Allowed, c.iqn) && w.scenario.budget.breaks == 0:
			w.violated("%s was told that it has the volume, and is not let in", c.name)
		}
	}
	if writes && mounted > 1 {
		w.violated("two nodes have the volume mounted, and one of them writes")
	}
}

func (w *world) violated(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.note("VIOLATED: %s", w.wrong)
	}
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// expect notes a violation unless something is so.
func (w *world) expect(so bool, format string, args ...any) {
	if !so {
		w.violated(format, args...)
	}
}
