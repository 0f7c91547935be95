package upgrade

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// before holds a host's first request of a kind back until work is done.
func (h *host) before(method, path string, work func()) {
	done := false
	h.gate = func(r *http.Request) {
		if !done && r.Method == method && strings.Contains(r.URL.Path, path) {
			done = true
			work()
		}
	}
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
	require.NoError(t, a.detach(today, pair{"pv-1", "node-a"}))
	require.NoError(t, a.detach(today, pair{"pv-1", "node-b"}))
}
