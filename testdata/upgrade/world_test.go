package upgrade

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
	"datera-flexvolume/driver/access"
)

const (
	cluster   = "kubernetes"
	clusterID = "5f0c6f0a-7a53-4f0e-9f4d-2f1a54a1f0b1"
)

// A version is one of the two executables.
type version int

const (
	former version = iota
	today
)

func (v version) String() string { return [...]string{"former", "today"}[v] }

// A world is an array, and who was told that it has a volume.
type world struct {
	t      *testing.T
	server *dateratest.Server
	files  executables

	mu   sync.Mutex
	told map[pair]holding
}

// A pair is what Kubernetes attaches and detaches, one call at a time: a PersistentVolume and a node.
type pair struct{ pv, node string }

type holding struct {
	volume string
	reads  bool
}

func newWorld(t *testing.T, nodes ...string) *world {
	w := &world{t: t, files: built(t), told: map[pair]holding{},
		server: dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.LaxFilters = true }))}
	for _, node := range nodes {
		require.NoError(t, w.server.RegisterInitiator(iqnOf(node), driver.InitiatorName(cluster, node)))
	}
	return w
}

func iqnOf(node string) string { return "iqn.1993-08.org.debian:01:" + node }

// A host is where control planes call the driver. Its locks and notes stay when its executable is replaced; the configuration
// is written by the installer of each version.
type host struct {
	*world
	dir   string
	front *httptest.Server

	mu      sync.Mutex
	gate    func(*http.Request) // passes, or holds back, each request of this host
	process *os.Process         // the last call's
}

func (w *world) newHost() *host {
	h := &host{world: w, dir: w.t.TempDir()}
	h.front = httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		if gate := h.current(); gate != nil {
			gate(r)
		}
		w.server.ServeHTTP(answer, r)
	}))
	w.t.Cleanup(h.front.Close)
	for _, v := range []version{former, today} {
		config := map[string]any{
			"mgmt_ip": strings.TrimPrefix(h.front.URL, "http://"), "scheme": "http", "username": "admin", "password": "password",
			"attach": "controller", "cluster": cluster, "log": map[string]any{"path": ""},
			"state_dir": filepath.Join(h.dir, "state"), "run_dir": filepath.Join(h.dir, "run"),
		}
		if v == today {
			config["cluster_id"] = clusterID
		}
		document, err := json.Marshal(config)
		require.NoError(w.t, err)
		require.NoError(w.t, os.WriteFile(h.config(v), document, 0o600))
	}
	return h
}

func (h *host) config(v version) string { return filepath.Join(h.dir, v.String()) }

func (h *host) current() func(*http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gate
}

func (h *host) setGate(gate func(*http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = gate
}

func (h *host) start(command *exec.Cmd) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := command.Start()
	h.process = command.Process
	return err
}

func (h *host) kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process.Kill()
}

// call runs one executable once.
func (h *host) call(v version, args ...string) (driver.Reply, error) {
	command := exec.Command(map[version]string{former: h.files.former, today: h.files.today}[v], args...)
	command.Env = []string{"DATERA_CONFIG=" + h.config(v)}
	var said bytes.Buffer
	command.Stdout = &said
	err := h.start(command)
	if err == nil {
		err = command.Wait()
	}
	if err != nil {
		return driver.Reply{}, fmt.Errorf("%s %v: %w: %s", v, args, err, said.Bytes())
	}
	var reply driver.Reply
	if err := json.Unmarshal(said.Bytes(), &reply); err != nil {
		return driver.Reply{}, fmt.Errorf("%s %v answered %q: %w", v, args, said.Bytes(), err)
	}
	return reply, nil
}

func options(pv, volume string, reads bool) string {
	o := map[string]string{"kubernetes.io/fsType": "xfs", "kubernetes.io/pvOrVolumeName": pv, "kubernetes.io/readwrite": "rw", "size": "10", "replica": "1"}
	if volume != "" {
		o["volumeID"] = volume
	}
	if reads {
		o["kubernetes.io/readwrite"] = "ro"
	}
	document, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(document)
}

// refusals are what a fence says. Any other failure is a fault.
var refusals = []string{"is in use by", "holds it", "already, by another PersistentVolume", "no longer lets node", "changed whom it lets in"}

// attach tells the caller that a node has a volume, or says that it was refused.
func (h *host) attach(v version, p pair, volume string, reads bool) (told bool, err error) {
	reply, err := h.call(v, "attach", options(p.pv, volume, reads), p.node)
	switch {
	case err != nil:
		return false, err
	case reply.Status == driver.Success:
		return true, h.tell(p, holding{volume, reads})
	case !slices.ContainsFunc(refusals, func(words string) bool { return strings.Contains(reply.Message, words) }):
		return false, fmt.Errorf("%s: attach %s to %s: %s", v, p.pv, p.node, reply.Message)
	}
	return false, h.check()
}

func (w *world) tell(p pair, new holding) error {
	w.mu.Lock()
	w.told[p] = new
	w.mu.Unlock()
	if by := w.claimsOf(p); len(by) == 0 || slices.Contains(by, formerGroup(p.pv)) && len(by) > 1 {
		return fmt.Errorf("%v was told and has claims by %v: there must be some, and not of both versions", p, by)
	}
	return w.check()
}

// check holds what may never be otherwise: a volume that one node writes is no other's, and who was told is let in.
func (w *world) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, has := range w.told {
		ai, _ := w.server.AppInstance("/root", has.volume)
		if !slices.Contains(ai.Allowed, iqnOf(p.node)) {
			return fmt.Errorf("%v was told that it has %+v, and is not let in any more: %v", p, has, ai.Allowed)
		}
		for other, too := range w.told {
			if other != p && has.volume == too.volume && !(has.reads && too.reads) {
				return fmt.Errorf("two have a volume, and not both read: %v %+v and %v %+v", p, has, other, too)
			}
		}
	}
	return nil
}

// forget is the beginning of a detach.
func (w *world) forget(p pair) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.told, p)
}

// holds tells what a pair has.
func (w *world) holds(p pair) (holding, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	has, told := w.told[p]
	return has, told
}

func formerGroup(pv string) string { return "k8s_" + cluster + "_" + pv }

// claimsOf are the groups of a PersistentVolume by which a node is let in to volumes.
func (w *world) claimsOf(p pair) []string {
	owner := access.Owner{Cluster: clusterID, PV: p.pv, Former: formerGroup(p.pv)}
	var groups []string
	for _, volume := range w.server.AppInstances("/root") {
		ai, _ := w.server.AppInstance("/root", volume)
		for _, path := range ai.Groups {
			name := strings.TrimPrefix(path, "/initiator_groups/")
			members, _ := w.server.InitiatorGroup("/root", name)
			if owner.Owns(name) && slices.Contains(members, iqnOf(p.node)) && !slices.Contains(groups, name) {
				groups = append(groups, name)
			}
		}
	}
	return groups
}

// detach takes a claim away, whoever made it. The former version does not know today's, which stay until today's executable
// takes them.
func (h *host) detach(v version, p pair) error {
	before := h.claimsOf(p)
	h.forget(p)
	take := func(v version) error {
		reply, err := h.call(v, "detach", p.pv, p.node)
		if err == nil && reply.Status != driver.Success {
			err = fmt.Errorf("%s: detach %v: %s", v, p, reply.Message)
		}
		return err
	}
	if err := take(v); err != nil {
		return err
	}
	if v == former && !slices.Contains(before, formerGroup(p.pv)) {
		if after := h.claimsOf(p); !slices.Equal(before, after) {
			return fmt.Errorf("the former version's detach of %v made %v of claims by %v", p, after, before)
		}
		if err := take(today); err != nil {
			return err
		}
	}
	readers, _ := h.server.InitiatorGroup("/root", "k8s-ro_"+cluster+"_"+p.pv)
	if left := h.claimsOf(p); len(left) > 0 || slices.Contains(readers, iqnOf(p.node)) {
		return fmt.Errorf("%s: after detach %v has claims by %v, and readers are %v", v, p, left, readers)
	}
	return h.check()
}
