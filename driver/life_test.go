package driver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/mount"
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

func TestInitAnswersByItself(t *testing.T) {
	tests := map[string]*Driver{
		"without anything":             {},
		"with a configuration":         {Config: defaultConfig()},
		"with a broken configuration":  {Config: defaultConfig(), ConfigError: errInjected},
		"in a mode that has no attach": {Config: Config{Attach: AttachNone}},
	}
	for name, d := range tests {
		t.Run(name, func(t *testing.T) {
			file := "init"
			if d.Config.Attach == AttachNone {
				file = "init-none"
			}
			golden(t, file, d.Serve(t.Context(), []string{"init"}))
		})
	}
}

func TestUnknownVerbs(t *testing.T) {
	for _, verb := range []string{"getvolumename", "atach", "INIT", "", "--\n"} {
		t.Run(verb, func(t *testing.T) {
			reply := (&Driver{}).Serve(t.Context(), []string{verb, "{}"})
			require.Equal(t, NotSupported, reply.Status)
		})
	}
	golden(t, "getvolumename", (&Driver{}).Serve(t.Context(), []string{"getvolumename", "{}"}))
}

func TestWrongNumberOfWords(t *testing.T) {
	d := &Driver{Config: defaultConfig()}
	require.Contains(t, d.Serve(t.Context(), nil).Message, "no verb given")
	for _, verb := range Verbs() {
		for _, words := range []int{len(verb.Args) - 1, len(verb.Args) + 1} {
			if words < 0 {
				continue
			}
			t.Run(fmt.Sprint(verb.Name, " with ", words), func(t *testing.T) {
				reply := d.Serve(t.Context(), append([]string{verb.Name}, make([]string, words)...))
				require.Equal(t, Failure, reply.Status)
				require.Contains(t, reply.Message, fmt.Sprintf("%s got %d words", verb.Name, words))
				require.Contains(t, reply.Message, verb.Usage())
			})
		}
	}
}

func TestFlagsThatAreNone(t *testing.T) {
	tests := map[string]struct{ words, flag string }{
		"beside all words":   {"attach --bogus x y", "--bogus"},
		"for a word":         {"attach --bogus node-a", "--bogus"},
		"at the end":         {"detach pv-datera-0 --force", "--force"},
		"with a value":       {"unmount --pass=canary /x", "--pass"},
		"where none belongs": {"init --bogus", "--bogus"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reply := (&Driver{Config: defaultConfig()}).Serve(t.Context(), strings.Fields(test.words))
			require.Equal(t, failure(fmt.Errorf("unknown flag %s: try `iscsi %s --help`", test.flag, strings.Fields(test.words)[0])), reply)
		})
	}
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
	options := optionsWith(map[string]string{keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("password"), optServer: server.Address()})
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
	require.Empty(t, n.members(server, "kube-pv-datera-0"), "the grant was not given back")
	repeat(t, n, [][]string{{"unmount", otherPod}})
}

func TestModeNoneWithoutCredentialsOfItsOwn(t *testing.T) {
	server := array(t)
	noCredentials := func(c *Config) { c.Attach, c.Username, c.Password = AttachNone, "", "" }
	a, b := newNode(t, server, "node-a", noCredentials), newNode(t, server, "node-b", noCredentials)
	options := optionsWith(map[string]string{keySecret + "username": secretOf("admin"), keySecret + "password": secretOf("password"), optServer: server.Address()})
	a.ask(t, "mount", podPath, options)
	a.ask(t, "unmount", podPath)
	require.Empty(t, a.disks)
	require.Empty(t, a.journal().unfinished(), "a removal that nobody can finish is tried for ever")
	b.content = a.content
	b.ask(t, "mount", podPath, options) // takes over: node-a has no session any more
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
			require.Empty(t, n.members(server, "kube-pv-datera-0"))
			delete(n.fails, step)
			n.ask(t, "mount", podPath, optionsWith(nil))
		})
	}
}

func TestMountDeviceFormatsOnlyWhatIsProvablyBlank(t *testing.T) {
	tests := map[string]struct {
		content mount.Content
		device  func(string) string
		options map[string]string
		says    string
	}{
		"another file system":     {mount.Content{Filesystem: "ext4", Detail: "at offset 1024"}, nil, nil, "holds ext4 (at offset 1024), not xfs"},
		"LVM":                     {mount.Content{Filesystem: "LVM2_member"}, nil, nil, "holds LVM2_member"},
		"unknown bytes":           {mount.Content{Detail: "non-zero bytes at offset 65536"}, nil, nil, "non-zero bytes at offset 65536"},
		"a damaged xfs":           {mount.Content{Filesystem: "xfs", Damaged: true, Detail: "primary destroyed"}, nil, nil, "damaged xfs (primary destroyed)"},
		"the array knows of data": {mount.Content{Blank: true}, func(device string) string { return device + "&format=never" }, nil, "the array says that there is data"},
		"a read-only mount":       {mount.Content{Blank: true}, nil, map[string]string{keyReadWrite: "ro"}, "mount it read-write once"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, array(t), "node-a").registered(t)
			options := optionsWith(test.options)
			device := n.ask(t, "attach", options, "node-a").Device
			attachment, err := ParseAttachment(device)
			require.NoError(t, err)
			n.content[attachment.Target.Serial] = test.content
			if test.device != nil {
				device = test.device(device)
			}
			disk := n.ask(t, "waitforattach", device, options).Device
			message := n.refused(t, "mountdevice", globalPath, disk, options)
			require.Contains(t, message, test.says)
			require.Contains(t, message, "kube-pv-datera-0", "the message does not name the volume")
			require.Equal(t, []string{"login"}, words(n.takeDone()), "the disk was touched")
		})
	}
}

func TestMountDeviceAfterAReadError(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", optionsWith(nil), "node-a").Device, optionsWith(nil)).Device
	n.fails["inspect"] = errors.New("read at offset 0: input/output error")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, disk, optionsWith(nil)), "input/output error")
	require.Equal(t, []string{"login"}, words(n.takeDone()), "a disk that cannot be read was formatted or mounted")
}

func TestMountDeviceRefusesAForeignDisk(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	one := optionsWith(nil)
	two := optionsWith(map[string]string{keyName: "pv-datera-1", optVolumeID: "kube-pv-datera-1"})
	n.ask(t, "waitforattach", n.ask(t, "attach", one, "node-a").Device, one)
	other := n.ask(t, "waitforattach", n.ask(t, "attach", two, "node-a").Device, two).Device
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, one), "not this volume's")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, "/dev/sda", one), "/dev/sda")
	require.Contains(t, n.refused(t, "mountdevice", "relative/path", other, one), "absolute path")
	require.NoError(t, os.RemoveAll(n.Config.StateDir))
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, one), "no record on this node")
	require.Contains(t, n.refused(t, "mountdevice", globalPath, other, two), "accepted is the one of volume pv-datera-1")
}

func TestMountRefuses(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	require.Contains(t, n.refused(t, "mount", podPath, options), "mountdevice comes first")
	require.Contains(t, n.refused(t, "mount", "/tmp/x", options), "pods/UID/volumes/datera~iscsi/NAME")
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	require.Contains(t, n.refused(t, "mount", podPath, optionsWith(map[string]string{optVolumeID: "another-volume"})), "two pods use one volume name")
}

func TestReadOnlyIsHonoured(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(map[string]string{keyReadWrite: "ro"})
	device := n.ask(t, "attach", options, "node-a").Device
	attachment, err := ParseAttachment(device)
	require.NoError(t, err)
	n.content[attachment.Target.Serial] = mount.Content{Filesystem: "xfs"}
	disk := n.ask(t, "waitforattach", device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.ask(t, "mount", podPath, options)
	for _, mounted := range n.mounts {
		require.True(t, mounted.ReadOnly, "%s is mounted read-write", mounted.Path)
	}
	require.Contains(t, n.refused(t, "mount", otherPod, optionsWith(nil)), "mounted read-only on this node")
}

func TestUnmountDeviceFinishesWhatWasCutOff(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.fails["logout"] = errInjected
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "injected")
	require.NotEmpty(t, n.disks)
	delete(n.fails, "logout")

	// kubelet calls no unmountdevice for a path that is no mount point any more: the next
	// call, whatever it is, has to finish the work.
	n.ask(t, "unmount", otherPod)
	require.Empty(t, n.disks, "the session stays for ever")
	require.Empty(t, n.journal().unfinished())
}

func TestUnmountDeviceWithoutARecord(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	require.NoError(t, os.RemoveAll(n.Config.StateDir))
	n.ask(t, "unmountdevice", globalPath)
	require.Empty(t, n.disks, "without its record the session was forgotten")
}

func TestUnmountDeviceRefuses(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	require.Contains(t, n.refused(t, "unmountdevice", "/"), "absolute path")
	require.Contains(t, n.refused(t, "unmountdevice", "/home"), "accepted is where kubelet mounts")
	require.Contains(t, n.refused(t, "unmountdevice", kubeletRoot+"/"+globalMounts+"/UPPER"), "volume name")
	require.Contains(t, n.refused(t, "unmount", "/home"), "accepted is a pod's volume directory")
	n.mounts = []mount.Mount{{Device: "/dev/sda1", Path: globalPath}}
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "by hand", "a foreign disk was unmounted")
	n.fails["mountinfo"] = errInjected
	require.Contains(t, n.refused(t, "unmountdevice", globalPath), "injected")
}

func TestExpand(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", n.ask(t, "attach", options, "node-a").Device, options).Device
	require.Contains(t, n.refused(t, "expandfs", options, disk, globalPath, "1", "1"), "not mounted")
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.takeDone()

	golden(t, "expandfs", n.ask(t, "expandfs", options, disk, globalPath, fmt.Sprint(101*gib+1), fmt.Sprint(100*gib)))
	require.Equal(t, []string{"rescan", "grow"}, words(n.takeDone()))
	ai, err := mustArray(t, n).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	volume, err := ai.Volume()
	require.NoError(t, err)
	require.EqualValues(t, 102, volume.SizeGiB, "a size between two GiB is rounded up")

	golden(t, "expandvolume", n.ask(t, "expandvolume", options, globalPath, fmt.Sprint(200*gib), fmt.Sprint(102*gib)))
	n.ask(t, "expandvolume", options, globalPath, fmt.Sprint(150*gib), fmt.Sprint(102*gib)) // smaller than it is: nothing to do
	for _, size := range []string{"", "0", "-1", "3Gi", "999999999999999999999"} {
		require.Contains(t, n.refused(t, "expandfs", options, disk, globalPath, size, "1"), "number of bytes")
		require.Contains(t, n.refused(t, "expandvolume", options, globalPath, size, "1"), "number of bytes")
	}
}

func TestExpandWithoutCredentials(t *testing.T) {
	server := array(t)
	control := newNode(t, server, "control")
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	disk := n.ask(t, "waitforattach", control.ask(t, "attach", options, "node-a").Device, options).Device
	n.ask(t, "mountdevice", globalPath, disk, options)
	n.Config.Username = ""
	n.ask(t, "expandfs", options, disk, globalPath, fmt.Sprint(100*gib), "1") // large enough already
	n.fails["rescan"] = errors.New("the disk has 107374182400 bytes")
	message := n.refused(t, "expandfs", options, disk, globalPath, fmt.Sprint(101*gib), "1")
	require.Contains(t, message, "this node cannot grow it on the array")
	require.Contains(t, message, "no credentials")
}

func mustArray(t *testing.T, n *node) Array {
	t.Helper()
	a, err := n.configuredArray("")
	require.NoError(t, err)
	return a
}

func TestConfigErrorIsReportedByEveryCallThatNeedsTheArray(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	n.ConfigError = errors.New("configuration /x: unknown key")
	for _, call := range [][]string{{"attach", optionsWith(nil), "node-a"}, {"detach", "pv-datera-0", "node-a"}, {"isattached", optionsWith(nil), "node-a"}} {
		require.Contains(t, n.refused(t, call...), "unknown key")
	}
}

func TestCredentialsGoToNoOtherServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	connected := make(chan struct{}, 1)
	go func() {
		defer close(connected)
		if conn, err := listener.Accept(); err == nil {
			conn.Close()
			connected <- struct{}{}
		}
	}()
	n := newNode(t, array(t), "node-a")
	options := optionsWith(map[string]string{optServer: listener.Addr().String()})
	for _, call := range [][]string{{"attach", options, "node-a"}, {"isattached", options, "node-a"}, {"expandvolume", options, globalPath, "1", "1"}} {
		message := n.refused(t, call...)
		require.Contains(t, message, "backstoreServer")
		require.Contains(t, message, "sent nowhere else")
	}
	listener.Close()
	_, received := <-connected
	require.False(t, received, "the driver spoke to a server that the configuration does not name")
}

func TestServeAnswersAPanic(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	n.Driver.OpenArray = func(string, Credentials, string) (Array, error) { panic("canary") }
	message := n.refused(t, "attach", optionsWith(nil), "node-a")
	require.Contains(t, message, "a fault in the driver itself")
}

func TestServeAnswersWhenItIsToldToStop(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	lock, err := n.lockVolume(t.Context(), "pv-datera-0")
	require.NoError(t, err)
	defer lock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	reply := n.Serve(ctx, []string{"attach", optionsWith(nil), "node-a"})
	require.Equal(t, Failure, reply.Status)
	require.Contains(t, reply.Message, "another call that works on volume pv-datera-0")
}

func setActiveInitiators(t *testing.T, server *dateratest.Server, appInstance string, iqns ...string) {
	t.Helper()
	require.NoError(t, server.SetActiveInitiators(appInstance, iqns...))
}
