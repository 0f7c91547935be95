package driver

import (
	"context"
	"sync"
	"testing"

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
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	other := optionsWith(map[string]string{keyName: "pv-other"})
	makeVolume(t, a, "kube-pv-datera-0")
	for round := range 20 {
		replies := make(chan Reply, 2)
		go func() {
			replies <- a.Serve(context.WithoutCancel(t.Context()), []string{"attach", optionsWith(nil), "node-a"})
		}()
		go func() { replies <- b.Serve(context.WithoutCancel(t.Context()), []string{"attach", other, "node-b"}) }()
		one, two := <-replies, <-replies
		require.False(t, one.Status == Success && two.Status == Success, "round %d: two nodes got one volume", round)
		a.ask(t, "detach", "pv-datera-0", "node-a")
		b.ask(t, "detach", "pv-other", "node-b")
	}
}

func TestVolumeThatLetsEverybodyInIsRefused(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	_, err := server.Do("/root", "POST", "/app_instances", map[string]any{"name": "kube-pv-datera-0", "access_control_mode": "allow_all",
		"storage_instances": []any{map[string]any{"name": "storage-1", "volumes": []any{map[string]any{"name": "volume-1", "size": 100}}}}})
	require.NoError(t, err)
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "access_control_mode allow_all")
}

// A session counts, whoever let it in.
func TestSessionWithoutAGrantIsInTheWay(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "kube-pv-datera-0")
	allowForeign(t, n, server, "iqn.1993-08.org.debian:01:backup")
	n.ask(t, "attach", optionsWith(nil), "node-a") // listed alone does not count
	n.ask(t, "detach", "pv-datera-0", "node-a")
	setActiveInitiators(t, server, "kube-pv-datera-0", "iqn.1993-08.org.debian:01:backup")
	require.Contains(t, n.refused(t, "attach", optionsWith(nil), "node-a"), "iqn.1993-08.org.debian:01:backup")
	setActiveInitiators(t, server, "kube-pv-datera-0")
	n.ask(t, "attach", optionsWith(nil), "node-a")
}

func TestTakeOverLooksAgainAfterItHasFenced(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
	a.ask(t, "mount", podPath, optionsWith(nil))
	// node-a has no session when node-b looks, but has one although node-b has fenced it.
	b.over(func(real Array) Array { return lateSession{real, sync.OnceFunc(func() { comesBack(t, server, a) })} })
	require.Contains(t, b.refused(t, "mount", podPath, optionsWith(nil)), "node-a")
	require.Empty(t, b.disks)
	require.Empty(t, b.members(server, "kube-pv-datera-0"), "a node got a volume beside a session")
}

// lateSession lets somebody log in at the moment in which he loses his grant.
type lateSession struct {
	Array
	comes func()
}

func (l lateSession) RemoveMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	found, err := l.Array.RemoveMember(ctx, group, iqn)
	l.comes()
	return found, err
}

// comesBack lets a node have a session although its grant is gone, as an array might that
// does not drop sessions.
func comesBack(t *testing.T, server *dateratest.Server, n *node) {
	t.Helper()
	allowForeign(t, n, server, "iqn.1993-08.org.debian:01:helper")
	a := mustArray(t, n)
	_, err := a.AddMember(t.Context(), "foreign-group", n.iqn)
	require.NoError(t, err)
	setActiveInitiators(t, server, "kube-pv-datera-0", n.iqn)
}

func TestLoserOfATakeOverNoticesIt(t *testing.T) {
	server := array(t)
	a := newNode(t, server, "node-a", attachMode(AttachNone))
	b := newNode(t, server, "node-b", attachMode(AttachNone))
	var taken Reply
	a.onLogin = func() { taken = b.Serve(t.Context(), []string{"mount", podPath, optionsWith(nil)}) } // while node-a has no session yet
	message := a.refused(t, "mount", podPath, optionsWith(nil))
	require.Equal(t, Success, taken.Status, taken.Message)
	require.Contains(t, message, "was taken over by another node while this one logged in: kubelet tries again, and is refused as long as that one has it")
	require.Empty(t, a.disks)
	require.Empty(t, a.mounts)
	require.Len(t, b.mounts, 2)
}

func TestCopiedMachinesInModeNone(t *testing.T) {
	server := array(t)
	named := func(name string) func(*Config) { return func(c *Config) { c.Attach, c.Node = AttachNone, name } }
	a, clone := newNode(t, server, "node-a", named("node-a")), newNode(t, server, "node-b", named("node-b"))
	clone.iqn = a.iqn
	a.ask(t, "mount", podPath, optionsWith(nil))
	message := clone.refused(t, "mount", podPath, optionsWith(nil))
	require.Contains(t, message, "registered on")
	require.Contains(t, message, "for node node-a")
}

func TestCHAPThatTheConfigurationDoesNotKnowIsLeftOn(t *testing.T) {
	server := array(t)
	with := newNode(t, server, "node-a", func(c *Config) { c.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1"} }).registered(t)
	with.ask(t, "attach", optionsWith(nil), "node-a")
	with.ask(t, "detach", "pv-datera-0", "node-a")
	require.Contains(t, newNode(t, server, "control").refused(t, "attach", optionsWith(nil), "node-a"), `as user "chap-user"`)
}

func TestDetachIsNotMisledByAnEmptyGroupOfAnotherTenant(t *testing.T) {
	server := array(t)
	_, err := server.Do("/root", "POST", "/tenants", map[string]any{"name": "dev"})
	require.NoError(t, err)
	n := newNode(t, server, "node-a").registered(t)
	n.ask(t, "attach", optionsWith(nil), "node-a")
	n.ask(t, "detach", "pv-datera-0", "node-a")
	inDev := optionsWith(map[string]string{optTenant: "dev"})
	n.ask(t, "attach", inDev, "node-a")
	n.hints().forget("pv-datera-0") // time goes by
	n.ask(t, "detach", "pv-datera-0", "node-a")
	require.False(t, *n.ask(t, "isattached", inDev, "node-a").Attached, "detach succeeded and the grant is still there")
}

func TestReaderThatWantsToWriteLooksAgain(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	reading := optionsWith(map[string]string{keyReadWrite: "ro"})
	a.ask(t, "attach", reading, "node-a")
	a.over(func(real Array) Array {
		return joinedBySomebody{real, func() {
			_, err := real.AddMember(t.Context(), a.groupName("pv-datera-0"), b.iqn)
			require.NoError(t, err)
		}}
	})
	require.Contains(t, a.refused(t, "attach", optionsWith(nil), "node-a"), "node-b")
	state, _, err := b.lookForGrant(t.Context(), mustArray(t, b), "pv-datera-0")
	require.NoError(t, err)
	require.Contains(t, state.readers, a.iqn, "the node is not known as a reader any more")
	require.Contains(t, state.members, a.iqn, "the node lost the access that it had")
}

// joinedBySomebody lets another node in at the moment in which one stops being a reader.
type joinedBySomebody struct {
	Array
	joins func()
}

func (j joinedBySomebody) RemoveMember(ctx context.Context, group, iqn string) (*datera.InitiatorGroup, error) {
	found, err := j.Array.RemoveMember(ctx, group, iqn)
	j.joins()
	return found, err
}

// A node whose unmount failed still writes: nothing of the volume may leave it, and kubelet must hear of it.
func TestFailedUnmountIsAFailure(t *testing.T) {
	for _, mode := range []AttachMode{AttachKubelet, AttachNone} {
		t.Run(string(mode), func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a", attachMode(mode))
			calls, name := [][]string{{"unmount", podPath}}, "kube-pv-datera-0"
			if mode == AttachKubelet {
				n.stage(t, optionsWith(nil))
				name = "pv-datera-0"
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
			require.Equal(t, []string{n.iqn}, n.members(server, name), "the array lets the next writer in")
		})
	}
}

// After an attach that failed in mode kubelet nobody detaches: the next node would be told for ever who has the volume.
func TestFailedAttachLeavesNoGrant(t *testing.T) {
	for _, mode := range []AttachMode{AttachController, AttachKubelet} {
		for _, access := range []string{"rw", "ro"} {
			t.Run(string(mode)+" "+access, func(t *testing.T) {
				server := array(t)
				a, b := newNode(t, server, "node-a", attachMode(mode)).registered(t), newNode(t, server, "node-b", attachMode(mode)).registered(t)
				options := optionsWith(map[string]string{keyReadWrite: access})
				a.over(func(real Array) Array { return noACL{real} })
				require.Contains(t, a.refused(t, "attach", options, "node-a"), "add initiator group")
				state, held, err := b.lookForGrant(t.Context(), mustArray(t, b), "pv-datera-0")
				require.NoError(t, err)
				require.False(t, held, "%+v", state)
				b.ask(t, "attach", optionsWith(nil), "node-b")
			})
		}
	}
}

// noACL is an array that lets no group in.
type noACL struct{ Array }

func (noACL) AddInitiatorGroup(context.Context, string, string) error { return errInjected }

// Of two PersistentVolumes that name one volume, the mount of each would keep the other one on the node for ever.
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
func TestJoinMeansMembership(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	makeVolume(t, n, "kube-pv-datera-0")
	a := mustArray(t, n)
	_, _, err := a.CreateInitiatorGroup(t.Context(), n.groupName("pv-datera-0"))
	require.NoError(t, err)
	volume, err := n.volume(optionsWith(nil))
	require.NoError(t, err)
	g := grant{driver: n.Driver, array: a, volume: volume, node: n.name, iqn: n.iqn}
	require.NoError(t, g.join(t.Context(), grantState{}))
	require.Equal(t, []string{n.iqn}, n.members(server, "pv-datera-0"))
}

// The call's time may be up at any moment of a take-over.
func TestTakeOverThatIsCutOffIsUndone(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
	a.ask(t, "mount", podPath, optionsWith(nil))
	ctx, cancel := context.WithCancel(t.Context())
	b.over(func(real Array) Array { return lateSession{real, cancel} })
	volume, err := b.volume(optionsWith(nil))
	require.NoError(t, err)
	require.Error(t, b.Driver.mount(ctx, podPath, volume))
	require.Empty(t, a.members(server, "kube-pv-datera-0"), "who was given nothing keeps a grant")
	a.ask(t, "unmount", podPath)
	a.ask(t, "mount", podPath, optionsWith(nil))
}

// Only who was there all the time is taken over: who has just come may be about to log in.
func TestTakeOverSparesWhoHasJustCome(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a", attachMode(AttachNone)), newNode(t, server, "node-b", attachMode(AttachNone))
	a.used(t, "kube-pv-datera-0")
	a.leaveGrantTo(t, "kube-pv-datera-0", "node-dead")
	looks := 0
	b.over(func(real Array) Array {
		return meddled{Array: real, volume: func() {
			if looks++; looks == 3 { // to provision, for sessions, for sessions once more
				a.leaveGrantTo(t, "kube-pv-datera-0", "node-c")
			}
		}}
	})
	require.Contains(t, b.refused(t, "mount", podPath, optionsWith(nil)), "node-c")
	require.Equal(t, []string{newHost("node-dead").iqn, newHost("node-c").iqn}, a.members(server, "kube-pv-datera-0"))
}

// An announcement of a call that was killed arrives late, when who was watched has gone and another node came by another name.
func TestTakeOverLooksAgainWhenItFindsItselfAnnounced(t *testing.T) {
	server := array(t)
	named := func(name string) func(*Config) { return func(c *Config) { c.Attach, c.Node = AttachNone, name } }
	a, b := newNode(t, server, "node-a", named("node-a")), newNode(t, server, "node-b", named("node-b"))
	other := newNode(t, server, "node-c").registered(t)
	a.used(t, "kube-pv-datera-0")
	other.ask(t, "attach", optionsWith(nil), "node-c")
	other.ask(t, "detach", "pv-datera-0", "node-c")
	a.leaveGrantTo(t, "kube-pv-datera-0", "node-dead")
	ai, err := mustArray(t, a).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	require.NoError(t, mustArray(t, a).AddInitiatorGroup(t.Context(), ai.StorageInstances[0].Path, a.groupName("kube-pv-datera-0")))
	looks := 0
	b.over(func(real Array) Array {
		return meddled{Array: real, volume: func() {
			if looks++; looks == 3 {
				_, err := real.RemoveMember(t.Context(), a.groupName("kube-pv-datera-0"), newHost("node-dead").iqn)
				require.NoError(t, err)
				other.ask(t, "attach", optionsWith(nil), "node-c")
				a.leaveGrantTo(t, "kube-pv-datera-0", "node-b")
			}
		}}
	})
	b.refused(t, "mount", podPath, optionsWith(nil))
	require.Equal(t, []string{other.iqn}, other.letIn(t, "kube-pv-datera-0"), "who had the volume by then lost it")
}

// members are those whom the array lets in to a volume, by the name under which it is attached: in mode none that of the
// app instance.
func (n *node) members(server *dateratest.Server, name string) []string {
	members, _ := server.InitiatorGroup("/root", n.groupName(name))
	return members
}
