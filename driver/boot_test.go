package driver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPowerCut(t *testing.T) {
	cut := func(t *testing.T) *node {
		n := newNode(t, array(t), "node-a", attachMode(AttachKubelet))
		n.stage(t, optionsWith(nil))
		long := time.Unix(1_000_000_000, 0)
		require.NoError(t, os.Chtimes(n.journal().inUse("pv-datera-0"), long, long))
		require.NoError(t, os.Remove(filepath.Join(n.Config.RunDir, "started")))
		n.takeDone()
		return n
	}
	t.Run("what it leaves is cleared away", func(t *testing.T) {
		n := cut(t)
		clear(n.disks)
		n.mounts = nil
		n.ask(t, "unmount", otherPod)
		require.Empty(t, n.journal().used())
		require.Empty(t, n.journal().unfinished())
	})
	t.Run("what has a session is in use", func(t *testing.T) {
		n := cut(t)
		n.ask(t, "unmount", otherPod)
		require.Empty(t, n.takeDone())
		require.Equal(t, []string{"pv-datera-0"}, n.journal().used())
	})
	t.Run("it is looked for once", func(t *testing.T) {
		n := cut(t)
		n.ask(t, "unmount", otherPod)
		clear(n.disks)
		n.ask(t, "unmount", otherPod)
		require.Equal(t, []string{"pv-datera-0"}, n.journal().used(), "only the first call after a start has to look")
	})
	t.Run("what cannot be looked at stays", func(t *testing.T) {
		n := cut(t)
		clear(n.disks)
		n.fails["find"] = errors.New("injected")
		n.ask(t, "unmount", otherPod)
		delete(n.fails, "find")
		require.Equal(t, []string{"pv-datera-0"}, n.journal().used())
		n.mounts = nil
		n.ask(t, "unmount", otherPod)
		require.Empty(t, n.journal().used(), "and is tried again")
	})
}
