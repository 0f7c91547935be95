// Command demo leads the PersistentVolume of the seed documents through its life, on real
// iSCSI in virtual machines, and shows each step as it happens.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"datera-flexvolume/testdata/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		stop()
		os.Exit(1)
	}
}

const podUID = "6b99bd2a-628e-11e6-8463-0cc47ab41442"

func run(ctx context.Context) error {
	volume := lab.SeedVolume()
	pod := volume.PodPath(podUID)
	s := &stage{out: os.Stdout, names: []name{
		{"$OPTIONS", volume.Request()},
		{"$GLOBAL", volume.GlobalPath()},
		{"$POD", pod},
	}}
	s.title("PersistentVolume " + volume.Name + ", from the first pod that uses it to another node")
	for _, name := range s.names {
		s.say(fmt.Sprintf("%-8s  %s", name.short, name.long))
	}

	s.step("boot three machines: array, node-a, node-b", "the array is the simulator with a real iSCSI target on two portals")
	begin := time.Now()
	l, err := lab.Start(ctx, lab.Options{Bin: "bin", Nodes: []string{"node-a", "node-b"}})
	if err != nil {
		return err
	}
	defer l.Stop()
	s.took(begin)
	control := l.Array
	a, b := l.Nodes["node-a"], l.Nodes["node-b"]

	s.step("register the nodes' initiators on the array", "the installer does it once for each node")
	s.shell(ctx, a, lab.PluginDir+"/iscsi register node-a")
	s.shell(ctx, b, lab.PluginDir+"/iscsi register node-b")

	s.step("a pod lands on node-a: kube-controller-manager attaches", "provisions the volume over REST and gives node-a access")
	device := s.call(ctx, control, "attach", volume.Request(), "node-a").Reply.Device
	s.names = append(s.names, name{"$DEVICE", device})
	s.call(ctx, control, "isattached", volume.Request(), "node-a")
	s.step("node-a: kubelet waits for the disk", "logs in to both portals with iscsiadm and finds the disk by its serial number")
	disk := s.call(ctx, a, "waitforattach", device, volume.Request()).Reply.Device
	s.step("node-a: kubelet mounts the disk", "the disk is provably blank, so it gets an xfs")
	s.call(ctx, a, "mountdevice", volume.GlobalPath(), disk, volume.Request())
	s.step("node-a: kubelet gives it to the pod", "a bind mount")
	s.call(ctx, a, "mount", pod, volume.Request())

	s.step("node-a: the pod writes", "")
	s.shell(ctx, a, "dd if=/dev/urandom of="+pod+"/data bs=1M count=8 status=none; sync -f "+pod+"/data")
	s.shell(ctx, a, "lsscsi")
	s.shell(ctx, a, "mount | grep "+disk)
	written := s.shell(ctx, a, "sha256sum <"+pod+"/data")

	s.step("node-b wants the volume, too", "two nodes never write to one file system: it is refused, and told who has it")
	s.refused(ctx, control, "attach", volume.Request(), "node-b")

	s.step("the pod leaves node-a", "unbind, unmount, remove the disk, log out, take the access away")
	s.call(ctx, a, "unmount", pod)
	s.call(ctx, a, "unmountdevice", volume.GlobalPath())
	s.call(ctx, control, "detach", volume.Name, "node-a")
	s.shell(ctx, a, "ls /sys/class/iscsi_session /etc/iscsi/nodes /var/lib/datera-iscsi/volumes; lsscsi; mount | grep datera || :")

	s.step("the pod starts on node-b", "the same calls; the file system is there already")
	device = s.call(ctx, control, "attach", volume.Request(), "node-b").Reply.Device
	s.names[len(s.names)-1].long = device
	disk = s.call(ctx, b, "waitforattach", device, volume.Request()).Reply.Device
	s.call(ctx, b, "mountdevice", volume.GlobalPath(), disk, volume.Request())
	s.call(ctx, b, "mount", pod, volume.Request())
	s.shell(ctx, b, "lsscsi")
	s.shell(ctx, b, "mount | grep "+disk)
	read := s.shell(ctx, b, "sha256sum <"+pod+"/data")

	s.step("the claim is grown to 120Gi while the pod runs", "on the array, then the disk, then the file system")
	s.call(ctx, b, "expandfs", volume.Request(), disk, volume.GlobalPath(), fmt.Sprint(120<<30), fmt.Sprint(100<<30))
	s.shell(ctx, b, "df -h "+pod)

	s.step("everything goes", "the volume stays on the array: its data is kept")
	s.call(ctx, b, "unmount", pod)
	s.call(ctx, b, "unmountdevice", volume.GlobalPath())
	s.call(ctx, control, "detach", volume.Name, "node-b")

	if s.err == nil && (written == "" || written != read) {
		s.err = fmt.Errorf("node-b read %q, node-a wrote %q", read, written)
	}
	if s.err != nil {
		return s.err
	}
	s.title("proof: node-a wrote and node-b read sha256 " + strings.Fields(read)[0])
	return nil
}

// A stage shows what happens. After the first failure it does nothing more.
type stage struct {
	out   *os.File
	names []name // what commands are shown with instead of long words
	steps int
	err   error
}

type name struct{ short, long string }

func (s *stage) title(text string) { fmt.Fprintf(s.out, "\n%s\n\n", text) }

func (s *stage) say(text string) { fmt.Fprintf(s.out, "     %s\n", text) }

func (s *stage) took(begin time.Time) { s.say(fmt.Sprintf("%.1f s", time.Since(begin).Seconds())) }

func (s *stage) step(what, why string) {
	if s.err != nil {
		return
	}
	s.steps++
	fmt.Fprintf(s.out, "\n[%2d] %s\n", s.steps, what)
	if why != "" {
		s.say("(" + why + ")")
	}
}

// call runs the driver as kubelet does and wants it to succeed.
func (s *stage) call(ctx context.Context, m *lab.Machine, args ...string) lab.Call {
	call := s.run(ctx, m, args...)
	if s.err == nil && call.Reply.Status != "Success" {
		s.err = fmt.Errorf("%s on %s: %s", args[0], m.Name, call.Reply.Message)
	}
	return call
}

// refused runs the driver and wants it to fail.
func (s *stage) refused(ctx context.Context, m *lab.Machine, args ...string) {
	call := s.run(ctx, m, args...)
	if s.err == nil && call.Reply.Status != "Failure" {
		s.err = fmt.Errorf("%s on %s was not refused", args[0], m.Name)
	}
}

func (s *stage) run(ctx context.Context, m *lab.Machine, args ...string) lab.Call {
	if s.err != nil {
		return lab.Call{}
	}
	fmt.Fprintf(s.out, "     %s# iscsi %s\n", m.Name, s.shorten(strings.Join(args, " ")))
	var call lab.Call
	call, s.err = m.Call(ctx, args...)
	if s.err == nil {
		fmt.Fprintf(s.out, "     %s\n     %.2f s, programs: %d, REST calls: %d\n", call.Line, call.Took.Seconds(), call.Programs, call.Requests)
	}
	return call
}

// shorten shows long words by their names.
func (s *stage) shorten(command string) string {
	for _, name := range s.names {
		command = strings.ReplaceAll(command, name.long, name.short)
	}
	return strings.ReplaceAll(command, lab.PluginDir+"/", "")
}

// shell runs a script on a machine, shows what it prints and returns it.
func (s *stage) shell(ctx context.Context, m *lab.Machine, script string) string {
	if s.err != nil {
		return ""
	}
	fmt.Fprintf(s.out, "     %s# %s\n", m.Name, s.shorten(script))
	result, err := m.Shell(ctx, script)
	for line := range strings.Lines(string(result.Stdout) + string(result.Stderr)) {
		s.say(strings.TrimRight(line, "\n"))
	}
	if err == nil && result.Exit != 0 {
		err = fmt.Errorf("%q on %s: exit status %d: %s", script, m.Name, result.Exit, result.Stderr)
	}
	s.err = errors.Join(s.err, err)
	return string(result.Stdout)
}
