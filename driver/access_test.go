package driver

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/mount"
)

// A node came to read and was killed, at whatever request, and comes to write: it is not taken for a reader, beside whom others
// may read.
func TestWriterIsNotTakenForTheReaderThatWasKilled(t *testing.T) {
	tests := map[string]struct {
		mode    AttachMode
		shared  bool   // somebody had the volume by another name
		becomes string // where the PersistentVolume leads later
	}{
		"mode kubelet":                       {AttachKubelet, false, "vol-1"},
		"mode kubelet, to another volume":    {AttachKubelet, true, "vol-2"},
		"mode kubelet, shared":               {AttachKubelet, true, "vol-1"},
		"mode none":                          {AttachNone, false, "vol-1"},
		"mode none, shared with a cluster's": {AttachNone, true, "vol-1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := func(access, volume string) []string {
				options := optionsWith(map[string]string{optVolumeID: volume, keyReadWrite: access})
				if test.mode == AttachNone {
					return []string{"mount", podPath, options}
				}
				return []string{"attach", options, "node-a"}
			}
			for at, dead := 1, true; dead; at++ {
				synctest.Test(t, func(t *testing.T) {
					server := array(t)
					other := newNode(t, server, "node-b").registered(t)
					n := newNode(t, server, "node-a", inMemory(t), func(c *Config) { c.Attach, c.Node = test.mode, "node-a" }).registered(t)
					makeVolume(t, other, "vol-1")
					makeVolume(t, other, "vol-2")
					if test.shared {
						other.ask(t, "attach", optionsUnder("pv-other", "vol-1"), "node-b")
						other.ask(t, "detach", "pv-other", "node-b")
					}
					for _, h := range []string{"vol-1", "vol-2"} { // not blank: it can be mounted to be read
						ai, _ := server.AppInstance("/root", h)
						n.content[ai.VolumeUUID] = mount.Content{Filesystem: "xfs"}
					}
					dead = n.killedAt(t, server, at, true, call("ro", "vol-1")...)
					require.True(t, dead || at > 5, "only %d requests were made before the kill could come: nothing was tried", at-1)
					if len(n.mounts) > 0 { // the pod that read is gone
						n.ask(t, "unmount", podPath)
					}
					n.ask(t, call("rw", test.becomes)...)
					require.Equal(t, []string{n.iqn}, letIn(t, server, test.becomes), "killed at request %d", at)
					reading := optionsWith(map[string]string{keyName: "pv-reader", optVolumeID: test.becomes, keyReadWrite: "ro"})
					require.Contains(t, other.refused(t, "attach", reading, "node-b"), "node-a", "a reader beside a writer; killed at request %d", at)
				})
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
	a.ask(t, "attach", reading, "node-a")
	require.Contains(t, b.refused(t, "attach", reading, "node-b"), "node-a", "a reader was let in beside a writer")
	a.ask(t, "detach", "pv-datera-0", "node-a")
	require.Empty(t, letIn(t, server, "kube-pv-datera-0"), "detach left one of two claims")
	a.ask(t, "attach", reading, "node-a")
	b.ask(t, "attach", reading, "node-b")
}
