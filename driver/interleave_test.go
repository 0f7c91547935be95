package driver

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// way leads to the array what passes.
func way(t *testing.T, server *dateratest.Server, passes func(w http.ResponseWriter, r *http.Request, array http.Handler)) func(*Config) {
	t.Helper()
	array := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Address()})
	array.ErrorLog = log.New(io.Discard, "", 0)
	listens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { passes(w, r, array) }))
	t.Cleanup(listens.Close)
	return func(c *Config) { c.ManagementIP = listens.Listener.Addr().String() }
}

// refuse answers a call that was killed.
func refuse(w http.ResponseWriter) { http.Error(w, "killed", http.StatusForbidden) }

// between is a way to the array on which something happens before the n-th request, and by which no request arrives when its node is dead.
func between(t *testing.T, server *dateratest.Server, before map[int]func(), dead *bool) (change func(*Config), made func() int) {
	t.Helper()
	var count atomic.Int64
	change = way(t, server, func(w http.ResponseWriter, r *http.Request, array http.Handler) {
		if happens := before[int(count.Add(1))]; happens != nil {
			happens()
		}
		if *dead {
			refuse(w)
			return
		}
		array.ServeHTTP(w, r)
	})
	return change, func() int { return int(count.Load()) }
}

// ways are those in which a node comes to a volume, or to its name.
var ways = map[string]struct{ name, volume string }{
	"by the other name":    {"db-old", "vol-1"},
	"to the other volume":  {"db", "vol-2"},
	"by the name from ago": {"db", "vol-1"},
}

// formerly is an array on which db led to vol-1, and node-1 is known.
func formerly(t *testing.T) *dateratest.Server {
	t.Helper()
	server := array(t)
	second := newNode(t, server, "node-2").registered(t)
	second.ask(t, "attach", optionsUnder("db", "vol-1"), "node-2")
	second.ask(t, "detach", "db", "node-2")
	newNode(t, server, "node-1").registered(t)
	return server
}

// Three nodes want a volume by two names, one of which led to it before and may lead to another volume now. Whatever the
// moments at which the second and the third come while the first is at it: the volume lets in whoever is told that he has
// it, and nobody else.
func TestNamesInterleave(t *testing.T) {
	for name, first := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := interleave(t, first.name, first.volume, 0, 0, false) // nobody else comes
			require.Greater(t, calls, 5)
			for i := 1; i <= calls; i++ {
				for j := i; j <= calls; j++ {
					interleave(t, first.name, first.volume, i, j, false)
					interleave(t, first.name, first.volume, i, j, true)
				}
			}
			t.Logf("%d requests, %d ways to interleave", calls, calls*(calls+1))
		})
	}
}

// interleave lets the first node attach; before its i-th request the second attaches db for vol-1, before the j-th the third
// attaches db-old for vol-1, or the other way round. It returns how many requests the first one made.
func interleave(t *testing.T, name, volume string, i, j int, swapped bool) int {
	server := formerly(t)
	second, third := newNode(t, server, "node-2"), newNode(t, server, "node-3").registered(t)
	has := map[string][]string{} // by volume
	attach := func(n *node, name, volume string) func() {
		return func() {
			if n.Serve(t.Context(), []string{"attach", optionsUnder(name, volume), n.name}).Status == Success {
				has[volume] = append(has[volume], n.iqn)
			}
		}
	}
	comes := []func(){attach(second, "db", "vol-1"), attach(third, "db-old", "vol-1")}
	if swapped {
		comes[0], comes[1] = comes[1], comes[0]
	}
	before := map[int]func(){i: comes[0]}
	if i == j {
		before[i] = func() { comes[0](); comes[1]() }
	} else {
		before[j] = comes[1]
	}
	change, made := between(t, server, before, new(bool))
	attach(newNode(t, server, "node-1", change), name, volume)()
	for of, nodes := range has {
		way := fmt.Sprintf("requests %d and %d, swapped: %v; told that they have %s: %v", i, j, swapped, of, nodes)
		require.Len(t, nodes, 1, way)
		require.Equal(t, nodes, second.letIn(t, of), way)
	}
	if len(has["vol-1"]) == 0 {
		require.Empty(t, second.letIn(t, "vol-1"), "requests %d and %d, swapped: %v", i, j, swapped)
	}
	return made()
}

// The first node's call is killed before any of its requests. It can be repeated, and when it is over, the others come to
// the volume by either name.
func TestNamesAfterAKill(t *testing.T) {
	for name, first := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for killed := 1; ; killed++ {
				server := formerly(t)
				dead := false
				change, made := between(t, server, map[int]func(){killed: func() { dead = true }}, &dead)
				victim := newNode(t, server, "node-1", change)
				attach := []string{"attach", optionsUnder(first.name, first.volume), "node-1"}
				victim.Serve(t.Context(), attach)
				if !dead {
					require.Greater(t, made(), 5)
					return
				}
				node, other := newNode(t, server, "node-1"), newNode(t, server, "node-3").registered(t)
				node.ask(t, attach...)
				require.Equal(t, []string{node.iqn}, node.letIn(t, first.volume), "killed before request %d", killed)
				node.ask(t, "detach", first.name, "node-1")
				other.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-3")
				require.Equal(t, []string{other.iqn}, node.letIn(t, "vol-1"), "killed before request %d", killed)
				other.ask(t, "detach", "db-old", "node-3")
				other.ask(t, "attach", optionsUnder("db", "vol-1"), "node-3")
				require.Equal(t, []string{other.iqn}, node.letIn(t, "vol-1"), "killed before request %d", killed)
			}
		})
	}
}

// A node reads a volume, by a name that leads to another one by now. It wants that one, too, and another node comes to it at
// whatever moment: the first keeps what it reads.
func TestReaderOfTheFormerVolumeKeepsIt(t *testing.T) {
	for came, i := true, 1; came; i++ {
		came = false
		server := formerly(t)
		other := newNode(t, server, "node-2")
		makeVolume(t, other, "vol-2")
		attach := func(n *node, volume, access string) Reply {
			return n.Serve(t.Context(), []string{"attach", optionsWith(map[string]string{keyName: "db", optVolumeID: volume, keyReadWrite: access}), n.name})
		}
		change, _ := between(t, server, map[int]func(){i: func() { came = true; attach(other, "vol-2", "ro") }}, new(bool))
		n := newNode(t, server, "node-1")
		require.Equal(t, Success, attach(n, "vol-1", "ro").Status)
		attach(newNode(t, server, "node-1", change), "vol-2", "rw")
		require.Contains(t, n.letIn(t, "vol-1"), n.iqn, "the other node came before request %d", i)
	}
}

// A node takes a volume over from one that seems to be gone. Whatever the moment at which that one comes back: whoever is
// told that he has the volume has it, and nobody else.
func TestTakeOverInterleaves(t *testing.T) {
	tests := map[string][]string{ // who has a grant and no session
		"from one": {"node-a"}, "from one, after a kill": {"node-a", "node-b"}, "from two": {"node-a", "node-c"},
	}
	for name, left := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := 1
			for comesBackBefore(t, left, i) {
				i++
			}
			require.Greater(t, i, 10)
		})
	}
}

// comesBackBefore lets node-b mount a volume to which others have grants, and node-a, one of them, before node-b's i-th request.
// It reports whether there was such a request.
func comesBackBefore(t *testing.T, left []string, i int) (came bool) {
	t.Helper()
	server := array(t)
	door, atOnce := newDoor(server), func(string) error { return nil }
	a := door.guest(t, "node-a", atOnce)
	a.used(t, "vol-1")
	for _, name := range left {
		a.leaveGrantTo(t, "vol-1", name)
	}
	var has []string
	mounts := func(n *node) {
		n.Driver.watch = 200 * time.Millisecond
		if n.Serve(t.Context(), []string{"mount", podPath, optionsUnder("pv-datera-0", "vol-1")}).Status == Success {
			has = append(has, n.iqn)
		}
	}
	change, _ := between(t, server, map[int]func(){i: func() { came = true; mounts(a) }}, new(bool))
	mounts(door.guest(t, "node-b", atOnce, change))
	require.LessOrEqual(t, len(has), 1, "node-a came before request %d of node-b, and both were told that they have the volume", i)
	if len(has) > 0 {
		require.Equal(t, has, a.letIn(t, "vol-1"), "node-a came before request %d of node-b: who was told that he has the volume has it not, or not alone", i)
	}
	return came
}
