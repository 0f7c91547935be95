package driver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// One volume of the array may be reached under several names; it still has one writer.
func TestOneWriterUnderWhateverName(t *testing.T) {
	cluster := func(name string) func(*Config) { return func(c *Config) { c.Cluster = name } }
	tests := map[string]struct {
		first, second func(*Config)
		options       map[string]string // of the second
	}{
		"two PersistentVolumes": {cluster("c"), cluster("c"), map[string]string{keyName: "pv-other"}},
		"two clusters":          {cluster("c1"), cluster("c2"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			a, b := newNode(t, server, "node-a", test.first).registered(t), newNode(t, server, "node-b", test.second).registered(t)
			a.ask(t, "attach", optionsWith(nil), "node-a")
			require.Contains(t, b.refused(t, "attach", optionsWith(test.options), "node-b"), "node-a", "two nodes got one volume")
			a.ask(t, "detach", "pv-datera-0", "node-a")
			b.ask(t, "attach", optionsWith(test.options), "node-b")
			require.Contains(t, a.refused(t, "attach", optionsWith(nil), "node-a"), "node-b", "two nodes got one volume the other way round")
		})
	}
}

func TestTwoNamesRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		a, b := newNode(t, server, "node-a", inMemory(t)).registered(t), newNode(t, server, "node-b", inMemory(t)).registered(t)
		names := map[*node]string{a: "pv-datera-0", b: "pv-other"}
		makeVolume(t, a, "vol-1")
		for round := range 20 {
			replies := together(t, []*node{a, b}, func(n *node) []string { return []string{"attach", optionsUnder(names[n], "vol-1"), n.name} })
			require.False(t, replies[0].Status == Success && replies[1].Status == Success, "round %d: two nodes got one volume", round)
			for n, name := range names {
				n.ask(t, "detach", name, n.name)
			}
			require.Empty(t, letIn(t, server, "vol-1"))
		}
	})
}

// A PersistentVolume is made again under its name for another volume: its node is let in to that one alone, and each volume can be
// had by another name, and be deleted.
func TestANameThatGoesToAnotherVolume(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
	require.Equal(t, []string{a.iqn}, letIn(t, server, "vol-2"))
	require.Empty(t, letIn(t, server, "vol-1"), "who attached the new volume may log in to the former one, too")
	require.False(t, *a.ask(t, "isattached", optionsUnder("db", "vol-1"), "node-a").Attached)
	b.ask(t, "attach", optionsUnder("db-old", "vol-1"), "node-b")
	require.Contains(t, a.refused(t, "attach", optionsUnder("db", "vol-1"), "node-a"), "node-b", "two names let two nodes in")
	require.ErrorContains(t, a.Delete(t.Context(), volumeUnder(t, "db", "vol-1")), "is in use by "+b.iqn)
	b.ask(t, "detach", "db-old", "node-b")
	require.NoError(t, a.Delete(t.Context(), volumeUnder(t, "db", "vol-1")))
	require.Equal(t, []string{a.iqn}, letIn(t, server, "vol-2"), "the claim on the volume that has the name now is gone")
}

// It was not detached from the former one, which may have something to write still: it keeps that until it is detached.
func TestANameThatGoesToAnotherVolumeKeepsTheFormer(t *testing.T) {
	for _, access := range []string{"rw", "ro"} {
		server := array(t)
		a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
		a.ask(t, "attach", optionsWith(map[string]string{keyName: "db", optVolumeID: "vol-1", keyReadWrite: access}), "node-a")
		a.ask(t, "attach", optionsUnder("db", "vol-2"), "node-a")
		require.Equal(t, []string{a.iqn}, letIn(t, server, "vol-1"), "a session may have been cut that had something to write")
		require.Contains(t, b.refused(t, "attach", optionsUnder("db-old", "vol-1"), "node-b"), "node-a")
		a.ask(t, "detach", "db", "node-a")
		for _, volume := range []string{"vol-1", "vol-2"} {
			require.Empty(t, letIn(t, server, volume))
		}
	}
}

// An option may name a volume by its ID, too.
func TestAVolumeThatIsNamedByItsIDIsNoOther(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	a.ask(t, "attach", optionsUnder("db", "vol-1"), "node-a")
	id := idOf(t, server, "vol-1")
	require.Contains(t, b.refused(t, "attach", optionsUnder("db", id), "node-b"), "node-a")
	a.ask(t, "detach", "db", "node-a")
	b.ask(t, "attach", optionsUnder("db", id), "node-b")
	require.Contains(t, a.refused(t, "attach", optionsUnder("db", "vol-1"), "node-a"), "node-b")
}

func TestVolumeThatLetsEverybodyInIsRefused(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	_, err := server.Do("/root", "POST", "/app_instances", map[string]any{"name": "kube-pv-datera-0", "access_control_mode": "allow_all",
		"storage_instances": []any{map[string]any{"name": "storage-1", "volumes": []any{map[string]any{"name": "volume-1", "size": 100}}}}})
	require.NoError(t, err)
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "lets every initiator in, so nothing keeps two nodes apart: set access_control_mode to deny_all")
}

// An array may end the session of who lost its claim late: who evicts looks again.
func TestEvictionLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
		a.ask(t, "mount", podPath, optionsWith(nil))
		// node-a has no session when node-b looks, but has one although node-b has evicted it.
		b.over(func(real Array) Array { return lateSession{real, sync.OnceFunc(func() { comesBack(t, server, a) })} })
		require.Contains(t, b.refused(t, "mount", podPath, optionsWith(nil)), a.iqn)
		require.Empty(t, b.disks)
		require.Empty(t, b.sessions)
		require.NotContains(t, letIn(t, server, "kube-pv-datera-0"), b.iqn, "a node got a volume beside a session")
	})
}

// lateSession lets somebody log in at the moment in which a claim is removed.
type lateSession struct {
	Array
	comes func()
}

func (l lateSession) RemoveMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	found, err := l.Array.RemoveMember(ctx, group, iqn)
	l.comes()
	return found, err
}

// comesBack lets a node have a session although its claim is gone, as an array might that does not drop sessions.
func comesBack(t *testing.T, server *dateratest.Server, n *node) {
	t.Helper()
	allowForeign(t, n, server, n.iqn)
	setActiveInitiators(t, server, "kube-pv-datera-0", n.iqn)
}

// A node that has joined and not logged in yet may be evicted by one that has: it is told before it logs in, or when it looks
// again after the login.
func TestWhoIsEvictedNoticesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		door, atOnce := newDoor(server), func(string) error { return nil }
		b := door.guest(t, "node-b", atOnce)
		var evicts Reply
		comes := sync.OnceFunc(func() { evicts = b.Serve(t.Context(), []string{"mount", podPath, optionsWith(nil)}) })
		a := door.guest(t, "node-a", func(step string) error {
			if step == "login" {
				comes()
			}
			return nil
		})
		refused := a.Serve(t.Context(), []string{"mount", podPath, optionsWith(nil)})
		require.Equal(t, Success, evicts.Status, evicts.Message)
		require.Equal(t, Failure, refused.Status, refused.Message)
		require.Empty(t, a.disks)
		require.Empty(t, a.sessions)
		require.Empty(t, a.mounts)
		require.Len(t, b.mounts, 2)
		require.Equal(t, []string{b.iqn}, letIn(t, server, "kube-pv-datera-0"))
	})
}

// As above, on an array where the session of who is evicted goes on.
func TestWhoIsEvictedWithASessionNoticesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
		var evicts Reply
		a.onLogin = func() { evicts = b.Serve(t.Context(), []string{"mount", podPath, optionsWith(nil)}) } // while node-a has no session yet
		refused := a.Serve(t.Context(), []string{"mount", podPath, optionsWith(nil)})
		require.Equal(t, Success, evicts.Status, evicts.Message)
		message := refused.Message
		require.Contains(t, message, "no longer lets node node-a in")
		require.Contains(t, message, "another node evicted it")
		require.Empty(t, a.disks)
		require.Empty(t, a.sessions)
		require.Empty(t, a.mounts)
		require.Len(t, b.mounts, 2)
	})
}

func TestCopiedMachinesInModeNone(t *testing.T) {
	server := array(t)
	a, clone := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
	clone.iqn = a.iqn
	a.ask(t, "mount", podPath, optionsWith(nil))
	message := clone.refused(t, "mount", podPath, optionsWith(nil))
	require.Contains(t, message, "initiator "+a.iqn+" of this node, node-b, is registered on")
	require.Contains(t, message, "as k8s_kubernetes_node-a")
}

func TestCHAPThatTheConfigurationDoesNotKnowIsLeftOn(t *testing.T) {
	server := array(t)
	with := newNode(t, server, "node-a", func(c *Config) { c.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1"} }).registered(t)
	with.ask(t, "attach", optionsWith(nil), "node-a")
	with.ask(t, "detach", "pv-datera-0", "node-a")
	require.Contains(t, newNode(t, server, "control").refused(t, "attach", optionsWith(nil), "node-a"), `as user "chap-user"`)
}

// A node reads, and is attached to write. Another one comes at any moment: the first keeps what it had.
func TestReaderThatWantsToWriteKeepsItsClaim(t *testing.T) {
	for at, came := 1, true; came; at++ {
		came = false
		server := array(t)
		a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
		reading := optionsWith(map[string]string{keyReadWrite: "ro"})
		a.ask(t, "attach", reading, "node-a")
		var other Reply
		a.meets(map[int]func(){at: func() { came = true; other = b.Serve(t.Context(), []string{"attach", reading, "node-b"}) }})
		writes := a.Serve(t.Context(), []string{"attach", optionsWith(nil), "node-a"})
		require.False(t, came && writes.Status == Success && other.Status == Success, "a writer beside a reader, who came before request %d", at)
		require.Contains(t, letIn(t, server, "kube-pv-datera-0"), a.iqn, "the reader lost its claim; the other came before request %d", at)
		require.True(t, came || at > 4)
	}
}

// A node whose unmount failed still writes: nothing of the volume may leave it, and kubelet must hear of it.
func TestFailedUnmountIsAFailure(t *testing.T) {
	for _, mode := range []AttachMode{AttachKubelet, AttachNone} {
		t.Run(string(mode), func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a", attachMode(mode))
			calls := [][]string{{"unmount", podPath}}
			if mode == AttachKubelet {
				n.stage(t, optionsWith(nil))
				calls = [][]string{{"unmountdevice", globalPath}, {"detach", "pv-datera-0", "node-a"}}
			} else {
				n.ask(t, "mount", podPath, optionsWith(nil))
			}
			n.takeDone()
			n.fails["umount"] = errInjected
			for _, call := range calls {
				n.refused(t, call...)
			}
			require.NotContains(t, words(n.takeDone()), "logout", "the disk was taken from under a mounted file system")
			require.NotEmpty(t, n.disks)
			require.Equal(t, []string{n.iqn}, letIn(t, server, "kube-pv-datera-0"), "the array lets the next writer in")
		})
	}
}

// After an attach that failed in mode kubelet no detach comes: the next node would be refused until a person removes the claim.
func TestFailedAttachLeavesNoClaim(t *testing.T) {
	for _, mode := range []AttachMode{AttachController, AttachKubelet} {
		for _, access := range []string{"rw", "ro"} {
			t.Run(string(mode)+" "+access, func(t *testing.T) {
				server := array(t)
				a, b := newNode(t, server, "node-a", attachMode(mode)).registered(t), newNode(t, server, "node-b", attachMode(mode)).registered(t)
				options := optionsWith(map[string]string{keyReadWrite: access})
				a.over(func(real Array) Array { return noACL{real} })
				require.Contains(t, a.refused(t, "attach", options, "node-a"), "add initiator group")
				require.Empty(t, letIn(t, server, "kube-pv-datera-0"))
				b.ask(t, "attach", optionsWith(nil), "node-b")
			})
		}
	}
}

// noACL is an array that lets no group in.
type noACL struct{ Array }

func (noACL) AddInitiatorGroup(context.Context, string, string) error { return errInjected }

// Of two PersistentVolumes that name one volume, the mount of each would keep the other one on the node.
func TestOneNodeHasAVolumeUnderOneName(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	other := optionsWith(map[string]string{keyName: "pv-other"})
	n.ask(t, "attach", optionsWith(nil), "node-a")
	require.Contains(t, n.refused(t, "attach", other, "node-a"), "by another PersistentVolume or cluster")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	n.ask(t, "attach", other, "node-a")
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "by another PersistentVolume or cluster")
}

// A rival may have made the group in the meantime, and have gone again.
func TestAClaimMeansMembership(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "kube-pv-datera-0")
	group := groupName("kubernetes", "pv-datera-0", idOf(t, server, "kube-pv-datera-0"), "rw")
	n.over(func(real Array) Array {
		return rivalMakes{real, func() {
			_, _, err := real.CreateInitiatorGroup(t.Context(), group)
			assert.NoError(t, err)
		}}
	})
	n.ask(t, "attach", optionsWith(nil), "node-a")
	require.Equal(t, []string{n.iqn}, letIn(t, server, "kube-pv-datera-0"))
}

// rivalMakes is an array on which another call makes a group at the same moment.
type rivalMakes struct {
	Array
	comes func()
}

func (r rivalMakes) CreateInitiatorGroup(ctx context.Context, name string, iqns ...string) (*datera.InitiatorGroup, bool, error) {
	r.comes()
	return r.Array.CreateInitiatorGroup(ctx, name, iqns...)
}

// The call's time may be up at any moment of an eviction.
func TestEvictionThatIsCutOffIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
		a.ask(t, "mount", podPath, optionsWith(nil))
		ctx, cancel := context.WithCancel(t.Context())
		b.over(func(real Array) Array { return lateSession{real, cancel} })
		volume, err := b.volume(optionsWith(nil))
		require.NoError(t, err)
		require.Error(t, b.Driver.mount(ctx, podPath, volume))
		require.NotContains(t, letIn(t, server, "kube-pv-datera-0"), b.iqn, "who was given nothing keeps a claim")
		require.Empty(t, b.sessions)
		a.ask(t, "unmount", podPath)
		a.ask(t, "mount", podPath, optionsWith(nil))
	})
}

// Only who was there all the time is evicted: who has just come may be about to log in.
func TestEvictionSparesWhoHasJustCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
		a.used(t, "kube-pv-datera-0")
		dead := a.leaveClaimTo(t, server, "kube-pv-datera-0", "node-dead")
		b.onLogin = func() { // and three seconds later
			time.AfterFunc(3*time.Second, func() { a.leaveClaimTo(t, server, "kube-pv-datera-0", "node-c") })
		}
		require.Contains(t, b.refused(t, "mount", podPath, optionsWith(nil)), "node-c")
		require.Equal(t, []string{newHost("node-c").iqn, dead}, letIn(t, server, "kube-pv-datera-0"))
		require.Empty(t, b.sessions)
	})
}
