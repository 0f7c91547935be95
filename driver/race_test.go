package driver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver/program"
)

// together makes the same call on several nodes at once.
func together(t *testing.T, nodes []*node, args func(*node) []string) []Reply {
	t.Helper()
	replies := make([]Reply, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() { replies[i] = n.Serve(context.WithoutCancel(t.Context()), args(n)) })
	}
	group.Wait()
	return replies
}

// inMemory spares a node the disk, which takes most of a call's time.
func inMemory(t *testing.T) func(*Config) {
	dir := memoryDir(t)
	return func(c *Config) { c.StateDir, c.RunDir = filepath.Join(dir, "state"), filepath.Join(dir, "run") }
}

// Two nodes race for a volume that neither of them has seen, so all of it is made in the race: app instance, groups,
// ACL. In each round one at most gets it, and the other is told who is in its way; if each is in the other's way, whoever
// comes first when the calls are repeated gets it.
func TestTwoNodesRaceForANewVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		nodes := []*node{newNode(t, server, "node-a", inMemory(t)).registered(t), newNode(t, server, "node-b", inMemory(t)).registered(t)}
		won := map[string]int{}
		for round := range 50 {
			name := fmt.Sprintf("pv-%d", round)
			options := optionsWith(map[string]string{keyName: name, optVolumeID: "volume-" + name})
			replies := together(t, nodes, func(n *node) []string { return []string{"attach", options, n.name} })
			var winners []string
			for i, reply := range replies {
				if reply.Status == Success {
					winners = append(winners, nodes[i].iqn)
				} else {
					require.Contains(t, reply.Message, "node "+nodes[1-i].name+" (", "round %d: it is not told who is in its way", round)
				}
			}
			require.LessOrEqual(t, len(winners), 1, "round %d: two nodes got one volume", round)
			if len(winners) == 0 {
				nodes[round%2].ask(t, "attach", options, nodes[round%2].name)
				winners = []string{nodes[round%2].iqn}
			}
			won[winners[0]]++
			require.Equal(t, winners, letIn(t, server, "volume-"+name), "round %d: the array lets others in", round)
		}
		t.Log(won)
	})
}

// In attach mode none only the driver guards the volume: nodes race with mount, and each may evict one that has no
// session yet. Whatever happens, one at most has it mounted, and it is the one that the array lets in.
func TestTwoNodesRaceToMountInModeNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		door, atOnce := newDoor(server), func(string) error { return nil }
		nodes := []*node{door.guest(t, "node-a", atOnce), door.guest(t, "node-b", atOnce)}
		for round := range 30 {
			volume := fmt.Sprintf("volume-%d", round)
			options := optionsWith(map[string]string{optVolumeID: volume})
			replies := together(t, nodes, func(*node) []string { return []string{"mount", podPath, options} })
			var winners []*node
			for i, reply := range replies {
				if reply.Status == Success {
					winners = append(winners, nodes[i])
				} else {
					require.Empty(t, nodes[i].mounts, "round %d: a mount that failed left something", round)
					require.Empty(t, nodes[i].disks, "round %d: a mount that failed left a disk", round)
					require.Empty(t, nodes[i].sessions, "round %d: a mount that failed left a session", round)
				}
			}
			require.LessOrEqual(t, len(winners), 1, "round %d: two nodes have one volume mounted", round)
			if len(winners) == 0 { // each was in the other's way: kubelet tries again, one after the other
				nodes[round%2].ask(t, "mount", podPath, options)
				winners = nodes[round%2 : round%2+1]
			}
			require.Equal(t, []string{winners[0].iqn}, letIn(t, server, volume), "round %d: the winner is not the one whom the array lets in", round)
			winners[0].ask(t, "unmount", podPath)
		}
	})
}

// helperLock names the folder in which a copy of this test takes a lock; it holds it until it is killed.
const helperLock = "DRIVER_TEST_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperLock); dir != "" {
		holdLock(dir)
	}
	os.Exit(m.Run())
}

// holdLock takes a volume's lock, starts a child that outlives this process, and waits to be killed.
func holdLock(dir string) {
	d := &Driver{Config: Config{RunDir: dir}}
	if _, err := d.lockVolume(context.Background(), "pv-1"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	output, err := program.New(slog.New(slog.DiscardHandler)).Run(context.Background(), "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!")
	fmt.Println("locked", strings.TrimSpace(string(output)), err)
	select {}
}

// A lock goes with its process, even when that is killed and a program that it started lives on.
func TestLockDiesWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), helperLock+"="+dir)
	said, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line := make([]byte, 100)
	n, err := said.Read(line)
	require.NoError(t, err)
	words := strings.Fields(string(bytes.TrimSpace(line[:n])))
	require.Equal(t, "locked", words[0], string(line[:n]))
	t.Cleanup(func() { _ = exec.Command("kill", words[1]).Run() })

	d := &Driver{Config: Config{RunDir: dir}}
	synctest.Test(t, func(t *testing.T) {
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := d.lockVolume(short, "pv-1")
		require.ErrorIs(t, err, context.DeadlineExceeded, "waiting for a lock counts against the call's time")
		require.ErrorContains(t, err, "another call that works on volume pv-1")
	})

	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait()
	require.FileExists(t, "/proc/"+words[1]+"/stat", "the child lives on")
	unlock, err := d.lockVolume(t.Context(), "pv-1")
	require.NoError(t, err, "the lock outlived its process")
	unlock()
}
