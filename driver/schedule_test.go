package driver

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

var schedules = flag.Int("schedules", 20, "how many orders of requests TestSchedules tries of each kind")

// schedule lets the requests of several nodes to the array through one by one, in an order that a seed chooses.
type schedule struct {
	random  *rand.Rand
	arrived chan waiting
	ended   chan struct{}
	over    atomic.Bool // nobody has to wait any more

	mutex sync.Mutex
	trace []string
	told  map[string]map[string]bool // who was told that he has a volume, and whether he may write
	wrong []string                   // who was told so beside whom
}

type waiting struct {
	node, step string
	goOn       chan struct{}
}

func newSchedule(seed int) *schedule {
	return &schedule{
		random: rand.New(rand.NewPCG(uint64(seed), 0)), arrived: make(chan waiting), ended: make(chan struct{}), told: map[string]map[string]bool{},
	}
}

// wait keeps a node's step until it is its turn.
func (s *schedule) wait(node, step string) {
	if s.over.Load() {
		return
	}
	goOn := make(chan struct{})
	s.arrived <- waiting{node, step, goOn}
	<-goOn
}

// run runs what the actors do until all are done. One goes on where he is rather than not: most calls are short.
func (s *schedule) run(t *testing.T, actors []*actor) {
	for _, a := range actors {
		go func() {
			for _, act := range a.acts {
				a.does(t, act)
			}
			s.ended <- struct{}{}
		}()
	}
	var all []waiting
	last := ""
	for running := len(actors); ; {
		for len(all) < running {
			select {
			case next := <-s.arrived:
				all = append(all, next)
			case <-s.ended:
				running--
			}
		}
		if running == 0 {
			s.over.Store(true)
			return
		}
		chosen := s.random.IntN(len(all))
		if same := slices.IndexFunc(all, func(w waiting) bool { return w.node == last }); same >= 0 && s.random.IntN(5) < 3 {
			chosen = same
		}
		next := all[chosen]
		all, last = slices.Delete(all, chosen, chosen+1), next.node
		s.note("%s: %s", next.node, next.step)
		close(next.goOn)
	}
}

func (s *schedule) note(format string, args ...any) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// tell notes that a node was told that it has a volume. Nobody else may have it then, but readers beside readers.
func (s *schedule) tell(iqn, id string, writes bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for other, otherWrites := range s.told[id] {
		if other != iqn && (writes || otherWrites) {
			s.wrong = append(s.wrong, fmt.Sprintf("%s was told that it has %s beside %s", iqn, id, other))
		}
	}
	if s.told[id] == nil {
		s.told[id] = map[string]bool{}
	}
	s.told[id][iqn] = writes
}

func (s *schedule) leaves(iqn, id string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.told[id], iqn)
}

// mishaps are what may befall an actor at one of his steps: his call is killed before or right after it, or does not get the answer.
var mishaps = []string{"none", "none", "none", "killed before", "killed after", "answer lost"}

// An actor is a node that makes calls, with one mishap.
type actor struct {
	*node
	schedule *schedule
	acts     []string // words of calls, with a PersistentVolume's name and a volume
	mishap   string
	at       int64 // the step, from 1
	insists  bool  // an attach that was killed is repeated; else its pod is gone
	steps    atomic.Int64
	dead     atomic.Bool
}

// actor chooses what an actor does and what befalls him.
func (s *schedule) actor(mayDo [][]string) *actor {
	return &actor{
		schedule: s, acts: mayDo[s.random.IntN(len(mayDo))],
		mishap: mishaps[s.random.IntN(len(mishaps))], at: 1 + s.random.Int64N(20), insists: s.random.IntN(2) == 0,
	}
}

// guest is a node in mode none that used vol-1; calls of others that were killed have left some of their grants.
func (s *schedule) guest(t *testing.T, door *door) *actor {
	t.Helper()
	guest := &actor{schedule: s, node: door.guest(t, "node-5", func(string) error { return nil })}
	guest.used(t, "vol-1")
	for _, name := range []string{"node-1", "node-2", "node-3", "node-4"} {
		if s.random.IntN(2) == 0 {
			guest.leaveGrantTo(t, "vol-1", name)
		}
	}
	return guest
}

// step waits for the actor's turn and says what befalls him: "killed before" when he is dead already.
func (a *actor) step(what string) (mishap string) {
	if !a.dead.Load() {
		a.schedule.wait(a.name, what)
	}
	if a.steps.Add(1) == a.at && !a.schedule.over.Load() {
		a.schedule.note("%s: %s", a.name, a.mishap)
		a.dead.Store(strings.HasPrefix(a.mishap, "killed"))
		return a.mishap
	}
	if a.dead.Load() {
		return "killed before"
	}
	return "none"
}

// passes is the actor's way to the array.
func (a *actor) passes(w http.ResponseWriter, r *http.Request, array http.Handler) {
	switch a.step(r.Method + " " + r.URL.Path) {
	case "killed before":
		refuse(w)
	case "none":
		array.ServeHTTP(w, r)
	default:
		array.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

// before is called before a step on the node itself.
func (a *actor) before(what string) error {
	if a.step(what) == "killed before" {
		return errors.New("killed")
	}
	return nil
}

// does makes a call, and what kubelet or the provisioner does when it is killed.
func (a *actor) does(t *testing.T, act string) {
	a.call(t, act)
	if !a.dead.Swap(false) {
		return
	}
	if !a.insists {
		act = strings.NewReplacer("write", "leave", "read", "leave").Replace(act)
	}
	a.call(t, act)
}

func (a *actor) call(t *testing.T, act string) {
	words := strings.Fields(act)
	does, name, id := words[0], words[1], words[2]
	switch does {
	case "write", "read":
		reply := a.Serve(t.Context(), a.comes(name, id, map[string]string{"write": "rw", "read": "ro"}[does]))
		a.schedule.note("%s: %s: %s %s", a.name, act, reply.Status, reply.Message)
		if reply.Status == Success {
			a.schedule.tell(a.iqn, id, does == "write")
		}
	case "leave":
		a.schedule.leaves(a.iqn, id)
		reply := a.Serve(t.Context(), a.leaves(name))
		a.schedule.note("%s: %s: %s %s", a.name, act, reply.Status, reply.Message)
	case "delete":
		a.schedule.note("%s: %s: %v", a.name, act, a.Delete(t.Context(), volumeUnder(t, name, id)))
	}
}

// comes is how the node gets a volume.
func (a *actor) comes(name, id, access string) []string {
	options := optionsWith(map[string]string{keyName: name, optVolumeID: id, optRetainPolicy: "never", keyReadWrite: access})
	if a.Config.Attach == AttachNone {
		return []string{"mount", podPathOf(name), options}
	}
	return []string{"attach", options, a.name}
}

// leaves is how it lets one go.
func (a *actor) leaves(name string) []string {
	if a.Config.Attach == AttachNone {
		return []string{"unmount", podPathOf(name)}
	}
	return []string{"detach", name, a.name}
}

func podPathOf(name string) string { return filepath.Join(filepath.Dir(podPath), name) }

// check wants the volume of whoever was told that he has it: there, online, his alone if he writes, and open to him.
func (s *schedule) check(t *testing.T, looks *node) {
	t.Helper()
	trace := strings.Join(s.trace, "\n")
	require.Empty(t, s.wrong, trace)
	for id, nodes := range s.told {
		if len(nodes) == 0 {
			continue
		}
		ai, err := mustArray(t, looks).AppInstance(t.Context(), id)
		require.NoError(t, err, "%s was deleted under %v:\n%s", id, nodes, trace)
		require.Equal(t, datera.AdminOnline, ai.AdminState, "%s, which %v have:\n%s", id, nodes, trace)
		letIn := looks.letIn(t, id)
		for iqn := range nodes {
			require.Contains(t, letIn, iqn, "%s was told that it has %s:\n%s", iqn, id, trace)
		}
	}
}

// The volumes and the names that lead to them.
var leads = []struct{ name, volume string }{{"db", "vol-1"}, {"db-old", "vol-1"}, {"db", "vol-2"}}

// settle lets everybody leave, and wants each volume to be free for others then, by each name.
func (s *schedule) settle(t *testing.T, actors, others []*actor) {
	t.Helper()
	trace := strings.Join(s.trace, "\n")
	for _, a := range actors {
		for _, l := range leads {
			reply := a.Serve(t.Context(), a.leaves(l.name))
			require.Equal(t, Success, reply.Status, "%s leaves %s: %s\n%s", a.name, l.name, reply.Message, trace)
		}
		require.Empty(t, a.mounts, "%s\n%s", a.name, trace)
		require.Empty(t, a.disks, "%s\n%s", a.name, trace)
	}
	for _, other := range others {
		for _, l := range leads {
			reply := other.Serve(t.Context(), other.comes(l.name, l.volume, "rw"))
			require.Equal(t, Success, reply.Status, "when all are gone, %s wants %s by %s: %s\n%s", other.name, l.volume, l.name, reply.Message, trace)
			require.Equal(t, []string{other.iqn}, other.letIn(t, l.volume), trace)
			other.ask(t, other.leaves(l.name)...)
		}
	}
}

// Three nodes work on one volume by two names, one of which may lead to another volume; each request to the array of each of
// them is made in an order of its own, and each of them has a mishap or none.
func TestSchedules(t *testing.T) {
	const wDB, wOld, wNew = "write db vol-1", "write db-old vol-1", "write db vol-2"
	const leave = "leave db vol-1"
	const rDB, rOld, rNew = "read db vol-1", "read db-old vol-1", "read db vol-2"
	tests := map[string]struct {
		mounts int           // so many of the nodes are in attach mode none
		mayDo  [3][][]string // for each node
	}{
		"writers": {0, [3][][]string{
			{{wDB, leave}, {wNew, "leave db vol-2", wDB}, {wOld, "leave db-old vol-1", wDB}},
			{{wOld, "leave db-old vol-1"}, {wNew, "leave db vol-2", wOld}, {wDB}},
			{{wDB}, {wOld}, {wNew}},
		}},
		"readers": {0, [3][][]string{{{rDB}, {rNew}, {rOld}}, {{rDB}, {rNew}, {wOld}}, {{rDB}, {rNew}, {wDB}}}},
		"deletes": {0, [3][][]string{{{"delete db vol-1"}, {"delete db-old vol-1"}}, {{wDB}, {wOld}, {wNew}}, {{wDB}, {wOld}, {rDB}}}},
		"mounts":  {3, [3][][]string{{{wDB, leave}, {rDB, leave}}, {{wDB, leave, wDB}, {rDB}}, {{wDB}, {rDB}, {"delete db vol-1"}}}},
		"mixed":   {2, [3][][]string{{{wDB, leave}, {rDB, leave}}, {{wDB, leave, wDB}, {rDB}, {"delete db vol-1"}}, {{wDB}, {rDB}, {wOld, "leave db-old vol-1"}}}},
	}
	for kind, tt := range tests {
		for seed := range *schedules {
			t.Run(fmt.Sprintf("%s/%d", kind, seed), func(t *testing.T) {
				t.Parallel()
				server := formerly(t)
				looks := newNode(t, server, "node-2")
				newNode(t, server, "node-3").registered(t)
				fourth := newNode(t, server, "node-4").registered(t)
				makeVolume(t, looks, "vol-2")
				s := newSchedule(seed)
				door := newDoor(server)
				others := []*actor{{node: fourth, schedule: s}}
				if tt.mounts > 0 { // what a killed call of mode none left is taken over in mode none
					others = slices.Insert(others, 0, s.guest(t, door))
				}
				var actors []*actor
				for i, mayDo := range tt.mayDo {
					a := s.actor(mayDo)
					name, passes := fmt.Sprintf("node-%d", i+1), way(t, server, a.passes)
					if i < tt.mounts {
						a.node = door.guest(t, name, a.before, passes)
					} else {
						a.node = newNode(t, server, name, passes)
					}
					a.Driver.watch = 300 * time.Millisecond
					actors = append(actors, a)
				}
				s.run(t, actors)
				s.check(t, looks)
				s.settle(t, actors, others)
			})
		}
	}
}
