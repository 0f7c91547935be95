package driver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Hints of volumes that nobody asks for any more go with the next attach: a control plane that runs for years sees many.
func TestExpiredHintsAreSwept(t *testing.T) {
	h := hints{t.TempDir()}
	h.remember(hint{Volume: Volume{Name: "pv-1"}})
	h.rememberInitiator("node-1", "iqn.1993-08.org.debian:01:node-1")
	old := []string{h.path("pv-1"), h.initiatorPath("node-1"), filepath.Join(h.dir, ".pv-3.json.123456")}
	require.NoError(t, os.WriteFile(old[2], nil, 0o600))
	for _, path := range old {
		age(t, path, 2*time.Minute)
	}
	h.remember(hint{Volume: Volume{Name: "pv-2"}})
	h.rememberInitiator("node-2", "iqn.1993-08.org.debian:01:node-2")
	h.remember(hint{Volume: Volume{Name: "pv-4"}})
	for _, path := range old {
		require.NoFileExists(t, path)
	}
	for _, name := range []string{"pv-2", "pv-4"} {
		_, found := h.recall(name)
		require.True(t, found, name)
	}
	_, found := h.recallInitiator("node-2")
	require.True(t, found)
}
