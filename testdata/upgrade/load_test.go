package upgrade

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	rounds = flag.Int("rounds", 40, "calls of each of the callers in each phase")
	seed   = flag.Uint64("seed", 1, "what calls and orders are drawn by; 0: another one each time")
)

// A phase is a step of an upgrade or of the way back.
type phase struct {
	name  string
	hosts []turns
}

// turns are the executables that one host has in turn.
type turns []version

var phases = []phase{
	{"all former", []turns{{former}, {former}, {former}}},
	{"one control plane upgraded", []turns{{today}, {former}, {former, today}}},
	{"all of today", []turns{{today}, {today}, {today}}},
	{"one control plane taken back", []turns{{former}, {today}, {today, former}}},
	{"all former again", []turns{{former}, {former}, {former}}},
}

// volumeOf is what the PersistentVolumes lead to: each volume has two.
var volumeOf = map[string]string{"pv-1": "vol-1", "pv-2": "vol-1", "pv-3": "vol-2", "pv-4": "vol-2"}

func TestUpgradeAndWayBack(t *testing.T) {
	draw := *seed
	for draw == 0 {
		draw = rand.Uint64()
	}
	t.Logf("go test ./testdata/upgrade -seed %d -rounds %d", draw, *rounds)
	nodes := []string{"node-a", "node-b", "node-c"}
	w := newWorld(t, nodes...)
	l := load{world: w, locks: map[use]*sync.Mutex{}}
	for range phases[0].hosts {
		l.hosts = append(l.hosts, w.newHost())
	}
	o := newOrder(rand.New(rand.NewPCG(draw, 1000)), l.hosts)
	for _, h := range l.hosts {
		h.setGate(func(*http.Request) { o.wait(h) })
	}
	for pv := range volumeOf {
		for _, node := range nodes {
			l.pairs = append(l.pairs, pair{pv, node})
			l.locks[pair{pv, node}.use()] = &sync.Mutex{}
		}
	}
	slices.SortFunc(l.pairs, func(a, b pair) int { return slices.Compare([]string{a.pv, a.node}, []string{b.pv, b.node}) })
	for number, now := range phases {
		if !now.has(today) {
			require.NoError(t, l.detachTodays(), "before %s", now.name)
		}
		l.told, l.refused = [2]atomic.Int64{}, [2]atomic.Int64{}
		var callers sync.WaitGroup
		failed := make([]error, len(l.hosts))
		o.begin()
		for caller, h := range l.hosts {
			random := rand.New(rand.NewPCG(draw, uint64(number*len(l.hosts)+caller)))
			callers.Go(func() {
				defer o.end(h)
				versions := now.hosts[caller]
				for round := 0; round < *rounds && failed[caller] == nil; round++ {
					failed[caller] = l.step(random, h, versions[round%len(versions)])
				}
			})
		}
		callers.Wait()
		require.NoError(t, errors.Join(failed...), "%s, -seed %d", now.name, draw)
		t.Logf("%s: former told %d, refused %d; today told %d, refused %d", now.name,
			l.told[former].Load(), l.refused[former].Load(), l.told[today].Load(), l.refused[today].Load())
		for which, versions := range now.hosts {
			for _, v := range versions {
				require.Positive(t, l.told[v].Load(), "%s: the %s version got in nowhere", now.name, v)
				require.NoError(t, l.getsIn(l.hosts[which], v), now.name)
			}
		}
	}
	for p := range w.told {
		require.NoError(t, l.hosts[0].detach(former, p))
	}
	for _, volume := range w.server.AppInstances("/root") {
		ai, _ := w.server.AppInstance("/root", volume)
		require.Empty(t, ai.Allowed, volume)
	}
}

func (p phase) has(v version) bool {
	return slices.ContainsFunc(p.hosts, func(versions turns) bool { return slices.Contains(versions, v) })
}

// A use is what one call at a time works on. Kubernetes sees to that for a pair; two control planes of the former version fail
// if they attach a volume to one node by two PersistentVolumes at once: a third node, by one of these, sees neither.
type use struct{ volume, node string }

func (p pair) use() use { return use{volumeOf[p.pv], p.node} }

// A load is many short calls.
type load struct {
	*world
	hosts         []*host
	pairs         []pair
	locks         map[use]*sync.Mutex
	told, refused [2]atomic.Int64
}

func (l *load) step(random *rand.Rand, h *host, v version) error {
	p := l.draw(random)
	defer l.locks[p.use()].Unlock()
	has, told := l.holds(p)
	reads := random.IntN(2) == 0
	switch {
	// The former version withdraws the claim of a node that was told, if the attach of a writer is repeated while another one
	// comes; so it is not asked that. A writer does not become a reader without a detach.
	case told && (random.IntN(3) > 0 || v == former && !has.reads):
		return h.detach(v, p)
	case told:
		reads = has.reads && reads
	}
	in, err := h.attach(v, p, volumeOf[p.pv], reads)
	if in {
		l.told[v].Add(1)
	} else {
		l.refused[v].Add(1)
	}
	return err
}

// draw returns a pair of which no other call is under way: waiting for one would hold all requests. Half of the calls are for
// volumes that are in use, so that they become free.
func (l *load) draw(random *rand.Rand) pair {
	inUse := random.IntN(2) == 0
	for _, i := range random.Perm(len(l.pairs)) {
		if p := l.pairs[i]; inUse && l.locks[p.use()].TryLock() {
			if _, told := l.holds(p); told {
				return p
			}
			l.locks[p.use()].Unlock()
		}
	}
	for {
		if p := l.pairs[random.IntN(len(l.pairs))]; l.locks[p.use()].TryLock() {
			return p
		}
	}
}

// detachTodays is what an administrator does before the last host is taken back.
func (l *load) detachTodays() error {
	for _, p := range l.pairs {
		if claims := l.claimsOf(p); len(claims) > 0 && !slices.Contains(claims, formerGroup(p.pv)) {
			if err := l.hosts[0].detach(today, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// getsIn holds that a fence keeps out only while somebody is in.
func (l *load) getsIn(h *host, v version) error {
	p := pair{"pv-free", "node-a"}
	for _, reads := range []bool{false, true} {
		in, err := h.attach(v, p, "vol-free", reads)
		if err != nil || !in {
			return fmt.Errorf("%s: %v is kept out of a volume that nothing uses: %w", v, p, err)
		}
		if err := h.detach(v, p); err != nil {
			return err
		}
	}
	return nil
}
