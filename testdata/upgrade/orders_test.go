package upgrade

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

// before holds a host's first request of a kind back until work is done.
func (h *host) before(method, path string, work func()) {
	h.setGate(func(r *http.Request) {
		if r.Method == method && strings.Contains(r.URL.Path, path) {
			h.setGate(nil)
			work()
		}
	})
}

// killAfter kills a host's call at the first request that follows a change of what has this path.
func (h *host) killAfter(path string) {
	kill := func(r *http.Request) {
		h.setGate(nil)
		_ = h.kill()         // if it is gone already its caller says so
		<-r.Context().Done() // the connection ends with the process
	}
	h.before(http.MethodPut, path, func() { h.setGate(kill) })
}

// A reader of the former version becomes a writer while another one comes to read: one of them is refused.
func TestReaderBecomesWriterWhileAReaderComes(t *testing.T) {
	w := newWorld(t, "node-a", "node-b")
	a, b := w.newHost(), w.newHost()
	in, err := a.attach(former, pair{"pv-1", "node-a"}, "vol-1", true)
	require.NoError(t, err)
	require.True(t, in)
	var reader bool
	a.before(http.MethodPut, "/initiator_groups/k8s-ro_", func() {
		reader, err = b.attach(former, pair{"pv-1", "node-b"}, "vol-1", true)
		require.NoError(t, err)
		require.True(t, reader)
	})
	writer, err := a.attach(today, pair{"pv-1", "node-a"}, "vol-1", false)
	require.NoError(t, err)
	require.True(t, reader, "the order did not come about")
	require.False(t, writer)
	readers, _ := w.server.InitiatorGroup("/root", "k8s-ro_"+cluster+"_pv-1")
	require.ElementsMatch(t, []string{iqnOf("node-a"), iqnOf("node-b")}, readers, "it reads on, as before")
	require.NoError(t, a.detach(today, pair{"pv-1", "node-a"}))
	require.NoError(t, a.detach(today, pair{"pv-1", "node-b"}))
}

// Nobody was told of the claim of an attach that was killed. It keeps others out whichever executable asks next, until today's
// is back on that host and takes the claim back by its note.
func TestAttachOfTodayIsKilledAndTheFormerVersionComes(t *testing.T) {
	w := newWorld(t, "node-a", "node-b")
	h, other := w.newHost(), w.newHost()
	killed, next := pair{"pv-1", "node-a"}, pair{"pv-1", "node-b"}
	h.killAfter("/acl_policy/")
	_, err := h.attach(today, killed, "vol-1", false)
	require.ErrorContains(t, err, "signal: killed")
	require.Len(t, w.claimsOf(killed), 1)
	for _, at := range []*host{h, other} {
		for _, p := range []pair{killed, next} {
			in, err := at.attach(former, p, "vol-1", false)
			require.NoError(t, err)
			require.False(t, in, p)
		}
	}
	in, err := h.attach(today, next, "vol-1", false)
	require.NoError(t, err)
	require.True(t, in)
	require.Empty(t, w.claimsOf(killed))
}

// The former version leaves no note: its claim keeps others out until the node itself gets in, and is detached.
func TestAttachOfTheFormerVersionIsKilledAndTodaysComes(t *testing.T) {
	w := newWorld(t, "node-a", "node-b")
	h := w.newHost()
	killed, next := pair{"pv-1", "node-a"}, pair{"pv-1", "node-b"}
	h.killAfter("/acl_policy/")
	_, err := h.attach(former, killed, "vol-1", false)
	require.ErrorContains(t, err, "signal: killed")
	require.Equal(t, []string{formerGroup("pv-1")}, w.claimsOf(killed))
	for _, p := range []pair{next, killed} {
		in, err := h.attach(today, p, "vol-1", false)
		require.NoError(t, err)
		require.Equal(t, p == killed, in, p)
	}
	require.NoError(t, h.detach(today, killed))
	in, err := h.attach(today, next, "vol-1", false)
	require.NoError(t, err)
	require.True(t, in)
}

// A volume without volumeID is found again by the other version, not made once more.
func TestVolumeWithoutIDIsTheSameForBoth(t *testing.T) {
	for _, order := range [][]version{{former, today, former}, {today, former, today}} {
		w := newWorld(t, "node-a")
		h := w.newHost()
		for _, v := range order {
			for _, call := range [][]string{{"attach", options("pv-own", "", false), "node-a"}, {"detach", "pv-own", "node-a"}} {
				reply, err := h.call(v, call...)
				require.NoError(t, err)
				require.Equal(t, driver.Success, reply.Status, reply.Message)
			}
			require.Equal(t, []string{formerGroup("pv-own")}, w.server.AppInstances("/root"))
		}
	}
}
