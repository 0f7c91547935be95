package driver

import (
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden holds a reply to the letter against testdata/replies; what differs from run to
// run (UUIDs, the digits of an IQN) is replaced.
func golden(t *testing.T, name string, reply Reply) {
	t.Helper()
	line := regexp.MustCompile(`serial=[0-9a-f-]{36}`).ReplaceAll(reply.Line(), []byte("serial=UUID"))
	line = regexp.MustCompile(`:sn:[0-9a-f]{16}`).ReplaceAll(line, []byte(":sn:0123456789abcdef"))
	path := filepath.Join("testdata", "replies", name+".json")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, line, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(line), "the reply is not what %s holds", path)
}

func TestWholeLifeInModeController(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	control := newNode(t, server, "control")
	options := optionsWith(nil)

	golden(t, "isattached-not", control.ask(t, "isattached", options, "node-a"))
	attached := control.ask(t, "attach", options, "node-a")
	golden(t, "attach", attached)
	golden(t, "isattached", control.ask(t, "isattached", options, "node-a"))

	waited := a.ask(t, "waitforattach", attached.Device, options)
	golden(t, "waitforattach", waited)
	golden(t, "mountdevice", a.ask(t, "mountdevice", globalPath, waited.Device, options))
	golden(t, "mount", a.ask(t, "mount", podPath, options))
	require.Equal(t, []string{"login", "mkfs.xfs", "mount", "bind"}, words(a.takeDone()))
	repeat(t, a, [][]string{{"waitforattach", attached.Device, options}, {"mountdevice", globalPath, waited.Device, options}, {"mount", podPath, options}})

	a.ask(t, "mount", otherPod, options)
	a.ask(t, "unmount", otherPod)
	require.Equal(t, []string{"bind", "umount"}, words(a.takeDone()), "a second pod needs a bind mount and no more")

	golden(t, "attach-refused", control.Serve(t.Context(), []string{"attach", options, "node-b"}))
	require.Contains(t, a.refused(t, "unmountdevice", globalPath), podPath, "the disk was taken from under a pod")

	golden(t, "unmount", a.ask(t, "unmount", podPath))
	golden(t, "unmountdevice", a.ask(t, "unmountdevice", globalPath))
	require.Equal(t, []string{"umount", "umount", "logout"}, words(a.takeDone()))
	golden(t, "detach", control.ask(t, "detach", "pv-datera-0", "node-a"))
	repeat(t, a, [][]string{{"unmount", podPath}, {"unmountdevice", globalPath}})
	control.ask(t, "detach", "pv-datera-0", "node-a")
	require.False(t, *control.ask(t, "isattached", options, "node-a").Attached)
	require.Empty(t, a.disks, "a disk was left on the node")
	require.NoFileExists(t, a.journal().inUse("pv-datera-0"))

	// The other node gets the same volume, with its file system.
	b.content = a.content
	moved := control.ask(t, "attach", options, "node-b")
	require.Equal(t, attached.Device, moved.Device)
	disk := b.ask(t, "waitforattach", moved.Device, options).Device
	b.ask(t, "mountdevice", globalPath, disk, options)
	require.Equal(t, []string{"login", "mount"}, words(b.takeDone()), "a formatted volume was formatted again")
}

// words keeps what was done and drops to what.
func words(done []string) []string {
	first := make([]string, len(done))
	for i, line := range done {
		first[i], _, _ = strings.Cut(line, " ")
	}
	return first
}

// repeat makes calls whose work is done: each answers as before and changes nothing.
func repeat(t *testing.T, n *node, calls [][]string) {
	t.Helper()
	for _, call := range calls {
		n.ask(t, call...)
		require.Empty(t, n.takeDone(), "%s was repeated and changed something", call[0])
	}
}

func TestWholeLifeInModeKubelet(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachKubelet))
	options := optionsWith(nil)
	attached := n.ask(t, "attach", options, "node-a") // registers the node on the way
	disk := n.ask(t, "waitforattach", attached.Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	require.Contains(t, n.refused(t, "detach", "pv-datera-0", "node-a"), "still mounted", "a mounted volume was detached on its own node")
	n.ask(t, "unmountdevice", globalPath)
	n.ask(t, "detach", "pv-datera-0", "node-a")
	require.Empty(t, n.disks)
}

func TestDetachInModeKubeletRemovesWhatWasNeverMounted(t *testing.T) {
	n := newNode(t, array(t), "node-a", attachMode(AttachKubelet))
	options := optionsWith(nil)
	n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options)
	n.ask(t, "detach", "pv-datera-0", "node-a")
	require.Empty(t, n.disks, "the session of a volume that was never mounted stays")
}

func TestWholeLifeInModeNone(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	options := optionsWith(map[string]string{keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("password"), optServer: "sim.test"})
	n.ask(t, "mount", podPath, options)
	require.Equal(t, []string{"login", "mkfs.xfs", "mount", "bind"}, words(n.takeDone()))
	repeat(t, n, [][]string{{"mount", podPath, options}})
	n.ask(t, "mount", otherPod, options)
	require.Equal(t, []string{"bind"}, words(n.takeDone()))

	rival := newNode(t, server, "node-b", attachMode(AttachNone))
	setActiveInitiators(t, server, "kube-pv-datera-0", n.iqn)
	require.Contains(t, rival.refused(t, "mount", podPath, options), "node-a", "two nodes got one volume")
	require.Empty(t, rival.disks)

	n.ask(t, "unmount", podPath)
	require.Equal(t, []string{"umount"}, words(n.takeDone()), "the volume went away under the other pod")
	n.ask(t, "unmount", otherPod)
	require.Equal(t, []string{"umount", "umount", "logout"}, words(n.takeDone()))
	require.Empty(t, n.disks)
	require.Len(t, n.removed, 1, "the directory that mount made stays")
	require.Empty(t, n.journal().unfinished())
	require.Empty(t, letIn(t, server, "kube-pv-datera-0"), "the claim stays")
	repeat(t, n, [][]string{{"unmount", otherPod}})
}

func TestModeNoneWithoutCredentialsOfItsOwn(t *testing.T) {
	synctest.Test(t, modeNoneWithoutCredentials)
}

func modeNoneWithoutCredentials(t *testing.T) {
	server := array(t)
	noCredentials := func(c *Config) { c.Attach, c.Username, c.Password = AttachNone, "", "" }
	a, b := newNode(t, server, "node-a", noCredentials), newNode(t, server, "node-b", noCredentials)
	options := optionsWith(map[string]string{keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("password"), optServer: "sim.test"})
	a.ask(t, "mount", podPath, options)
	a.ask(t, "unmount", podPath)
	require.Empty(t, a.disks)
	require.Empty(t, a.journal().unfinished(), "a removal that nobody can finish is tried for ever")
	b.content = a.content
	b.ask(t, "mount", podPath, options) // it evicts node-a, which has no session any more
}

func TestFailedMountInModeNoneIsUndone(t *testing.T) {
	for _, step := range []string{"login", "mkfs.xfs", "mount"} {
		t.Run(step, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a", attachMode(AttachNone))
			n.fails[step] = errInjected
			require.Contains(t, n.refused(t, "mount", podPath, optionsWith(nil)), "injected")
			require.Empty(t, n.disks, "kubelet calls no unmount after a failed mount, so the session stays for ever")
			require.Empty(t, n.mounts)
			require.Empty(t, letIn(t, server, "kube-pv-datera-0"))
			delete(n.fails, step)
			n.ask(t, "mount", podPath, optionsWith(nil))
		})
	}
}

func mustArray(t *testing.T, n *node) Array {
	t.Helper()
	a, err := n.configuredArray("")
	require.NoError(t, err)
	return a
}

func TestCredentialsGoToNoOtherServer(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	var asked []string
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		asked = append(asked, r.URL.Host)
		return array.RoundTrip(r)
	})
	options := optionsWith(map[string]string{optServer: "other.test"})
	for _, call := range [][]string{{"attach", options, "node-a"}, {"isattached", options, "node-a"}, {"expandvolume", options, globalPath, "1", "1"}} {
		message := n.refused(t, call...)
		require.Contains(t, message, "backstoreServer")
		require.Contains(t, message, "sent nowhere else")
	}
	require.Empty(t, asked, "the driver spoke to a server")
	n.ask(t, "isattached", optionsWith(nil), "node-a")
	require.Subset(t, []string{"sim.test:7717"}, asked)
}

func setActiveInitiators(t *testing.T, server *dateratest.Server, appInstance string, iqns ...string) {
	t.Helper()
	require.NoError(t, server.SetActiveInitiators(appInstance, iqns...))
}
