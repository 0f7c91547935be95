package driver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A node came to read and was killed, at whatever request, and comes to write: it is not taken for a reader, beside whom others
// may read.
func TestWriterIsNotTakenForTheReaderThatWasKilled(t *testing.T) {
	tests := map[string]struct {
		mode    AttachMode
		grant   string // the name of its group
		shared  bool   // somebody had the volume by another name
		becomes string // where the PersistentVolume leads later
	}{
		"mode kubelet":                       {AttachKubelet, "pv-datera-0", false, "vol-1"},
		"mode kubelet, to another volume":    {AttachKubelet, "pv-datera-0", true, "vol-2"},
		"mode kubelet, shared":               {AttachKubelet, "pv-datera-0", true, "vol-1"},
		"mode none":                          {AttachNone, "vol-1", false, "vol-1"},
		"mode none, shared with a cluster's": {AttachNone, "vol-1", true, "vol-1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inMode := func(c *Config) { c.Attach, c.Node = test.mode, "node-a" }
			call := func(access, volume string) []string {
				options := optionsWith(map[string]string{optVolumeID: volume, keyReadWrite: access})
				if test.mode == AttachNone {
					return []string{"mount", podPath, options}
				}
				return []string{"attach", options, "node-a"}
			}
			for killed, dead := 1, true; dead; killed++ {
				dead = false
				server := array(t)
				other := newNode(t, server, "node-b").registered(t)
				newNode(t, server, "node-a").registered(t)
				makeVolume(t, other, "vol-1")
				makeVolume(t, other, "vol-2")
				if test.shared {
					other.ask(t, "attach", optionsUnder("pv-other", "vol-1"), "node-b")
					other.ask(t, "detach", "pv-other", "node-b")
				}
				change, _ := between(t, server, map[int]func(){killed: func() { dead = true }}, &dead)
				newNode(t, server, "node-a", inMode, change).Serve(t.Context(), call("ro", "vol-1"))
				require.True(t, dead || killed > 5, "only %d requests were made before the kill could come: nothing was tried", killed-1)

				n := newNode(t, server, "node-a", inMode)
				n.ask(t, call("rw", test.becomes)...)
				state, _, err := n.lookForGrant(t.Context(), mustArray(t, n), test.grant)
				require.NoError(t, err)
				require.Equal(t, []string{n.iqn}, state.members, "who writes has no grant; killed before request %d", killed)
				require.Empty(t, state.readers, "who writes is noted as a reader; killed before request %d", killed)
			}
		})
	}
}

// Two pods of a node use a volume, one of them to read only, and kubelet starts again: it may attach for that one first.
func TestWriterStaysOneWhenItIsAttachedToReadToo(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	reading := optionsWith(map[string]string{keyReadWrite: "ro"})
	a.ask(t, "attach", optionsWith(nil), "node-a")
	setActiveInitiators(t, server, "kube-pv-datera-0", a.iqn)
	a.ask(t, "attach", reading, "node-a")
	require.Contains(t, b.refused(t, "attach", reading, "node-b"), "node-a", "a reader was let in beside a writer")
	setActiveInitiators(t, server, "kube-pv-datera-0")
	a.ask(t, "attach", reading, "node-a")
	b.ask(t, "attach", reading, "node-b")
}

// What a killed attach left under one name does not outlive the use of the volume under another.
func TestKilledAttachThatIsRefusedLaterLeavesNoGrant(t *testing.T) {
	for _, access := range []string{"rw", "ro"} {
		t.Run(access, func(t *testing.T) {
			options := optionsWith(map[string]string{keyReadWrite: access})
			for killed, dead := 1, true; dead; killed++ {
				dead = false
				server := array(t)
				a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
				makeVolume(t, a, "kube-pv-datera-0")
				change, _ := between(t, server, map[int]func(){killed: func() { dead = true }}, &dead)
				newNode(t, server, "node-a", change).Serve(t.Context(), []string{"attach", options, "node-a"})
				other := optionsWith(map[string]string{keyName: "pv-other"})
				if b.Serve(t.Context(), []string{"attach", other, "node-b"}).Status != Success {
					continue // what was killed is in its way
				}
				a.refused(t, "attach", options, "node-a")
				b.ask(t, "detach", "pv-other", "node-b")
				b.ask(t, "attach", optionsWith(nil), "node-b")
			}
		})
	}
}
