package driver

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

var schedules = flag.Int("schedules", 20, "how many orders of requests TestSchedules tries of each kind")

// schedule lets the requests of several nodes to the array through one by one, in an order that a seed chooses.
type schedule struct {
	random  *rand.Rand
	arrived chan waiting
	ended   chan struct{}
	trace   []string

	mutex sync.Mutex
	told  map[string]map[string]bool // who was told that he has a volume, and whether he may write
}

type waiting struct {
	node, request string
	goOn          chan struct{}
}

// wait keeps a node's request until it is its turn.
func (s *schedule) wait(node string, r *http.Request) {
	goOn := make(chan struct{})
	s.arrived <- waiting{node, r.Method + " " + r.URL.Path, goOn}
	<-goOn
}

// run runs what the nodes do until all are done. A node goes on where it is rather than not: most calls are short.
func (s *schedule) run(nodes []func()) {
	for _, does := range nodes {
		go func() {
			does()
			s.ended <- struct{}{}
		}()
	}
	var all []waiting
	last := ""
	for running := len(nodes); ; {
		for len(all) < running {
			select {
			case next := <-s.arrived:
				all = append(all, next)
			case <-s.ended:
				running--
			}
		}
		if running == 0 {
			return
		}
		chosen := s.random.IntN(len(all))
		if same := slices.IndexFunc(all, func(w waiting) bool { return w.node == last }); same >= 0 && s.random.IntN(5) < 3 {
			chosen = same
		}
		next := all[chosen]
		all, last = slices.Delete(all, chosen, chosen+1), next.node
		s.note("%s: %s", next.node, next.request)
		close(next.goOn)
	}
}

func (s *schedule) note(format string, args ...any) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// do makes a node do something: "write", "read", "leave" or "delete", by a PersistentVolume's name, a volume.
func (s *schedule) do(t *testing.T, n *node, act string) {
	words := strings.Fields(act)
	does, name, id := words[0], words[1], words[2]
	mode := map[string]string{"write": "rw", "read": "ro"}[does]
	options := optionsWith(map[string]string{keyName: name, optVolumeID: id, optRetainPolicy: "never", keyReadWrite: mode})
	switch does {
	case "write", "read":
		reply := n.Serve(t.Context(), []string{"attach", options, n.name})
		s.note("%s: %s: %s %s", n.name, act, reply.Status, reply.Message)
		if reply.Status == Success {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			if s.told[id] == nil {
				s.told[id] = map[string]bool{}
			}
			s.told[id][n.iqn] = does == "write"
		}
	case "leave":
		s.mutex.Lock()
		delete(s.told[id], n.iqn)
		s.mutex.Unlock()
		reply := n.Serve(t.Context(), []string{"detach", name, n.name})
		s.note("%s: %s: %s %s", n.name, act, reply.Status, reply.Message)
	case "delete":
		s.note("%s: %s: %v", n.name, act, n.Delete(t.Context(), volumeUnder(t, name, id)))
	}
}

// check wants the volume of whoever was told that he has it: there, online, his alone if he writes, and open to him.
func (s *schedule) check(t *testing.T, looks *node) {
	t.Helper()
	trace := strings.Join(s.trace, "\n")
	for id, nodes := range s.told {
		if len(nodes) == 0 {
			continue
		}
		ai, err := mustArray(t, looks).AppInstance(t.Context(), id)
		require.NoError(t, err, "%s was deleted under %v:\n%s", id, nodes, trace)
		require.Equal(t, datera.AdminOnline, ai.AdminState, "%s, which %v have:\n%s", id, nodes, trace)
		letIn := looks.letIn(t, id)
		for iqn, writes := range nodes {
			require.Contains(t, letIn, iqn, "%s was told that it has %s:\n%s", iqn, id, trace)
			require.False(t, writes && len(nodes) > 1, "%v have %s, true for those that write:\n%s", nodes, id, trace)
		}
	}
}

// Three nodes work on one volume by two names, one of which may lead to another volume; each request to the array of each of
// them is made in an order of its own.
func TestSchedules(t *testing.T) {
	const wDB, wOld, wNew = "write db vol-1", "write db-old vol-1", "write db vol-2"
	const rDB, rOld, rNew = "read db vol-1", "read db-old vol-1", "read db vol-2"
	tests := map[string][3][][]string{ // for each node what it may do
		"writers": {
			{{wDB, "leave db vol-1"}, {wNew, "leave db vol-2", wDB}, {wOld, "leave db-old vol-1", wDB}},
			{{wOld, "leave db-old vol-1"}, {wNew, "leave db vol-2", wOld}, {wDB}},
			{{wDB}, {wOld}, {wNew}},
		},
		"readers": {{{rDB}, {rNew}, {rOld}}, {{rDB}, {rNew}, {wOld}}, {{rDB}, {rNew}, {wDB}}},
		"deletes": {{{"delete db vol-1"}, {"delete db-old vol-1"}}, {{wDB}, {wOld}, {wNew}}, {{wDB}, {wOld}, {rDB}}},
	}
	for kind, mayDo := range tests {
		for seed := range *schedules {
			t.Run(fmt.Sprintf("%s/%d", kind, seed), func(t *testing.T) {
				server := formerly(t)
				looks := newNode(t, server, "node-2")
				newNode(t, server, "node-3").registered(t)
				makeVolume(t, looks, "vol-2")
				s := &schedule{
					random: rand.New(rand.NewPCG(uint64(seed), 0)), arrived: make(chan waiting), ended: make(chan struct{}), told: map[string]map[string]bool{},
				}
				var nodes []func()
				for i, acts := range mayDo {
					name := fmt.Sprintf("node-%d", i+1)
					inTurn := way(t, server, func(r *http.Request) bool { s.wait(name, r); return true })
					n, does := newNode(t, server, name, inTurn), acts[s.random.IntN(len(acts))]
					nodes = append(nodes, func() {
						for _, act := range does {
							s.do(t, n, act)
						}
					})
				}
				s.run(nodes)
				s.check(t, looks)
			})
		}
	}
}
