// Command bench compares the driver with its floor: the same steps as bare commands of a
// shell script, in the same virtual machine, in turn. It prints medians and their ratio.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

const (
	rounds     = 9   // in the virtual machine
	quickRuns  = 100 // of init, which takes milliseconds
	warmUp     = 1   // rounds that do not count
	rowFormat  = "| %-46s | %9s | %9s | %5s |\n"
	milliFloat = "%.1f"
)

func run(ctx context.Context) error {
	fmt.Printf(rowFormat, "call", "driver ms", "floor ms", "ratio")
	fmt.Printf("|%s|%s|%s|%s|\n", "---", "---:", "---:", "---:")
	if err := benchInit(ctx); err != nil {
		return err
	}
	l, err := lab.Start(ctx, lab.Options{Bin: "bin", Nodes: []string{"node-a"}})
	if err != nil {
		return err
	}
	defer l.Stop()
	b := bench{control: l.Array, node: l.Nodes["node-a"], volume: lab.SeedVolume(), times: map[string]*pair{}}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for round := range warmUp + rounds {
		if round == warmUp {
			b.times = map[string]*pair{}
		}
		if err := b.round(ctx); err != nil {
			return err
		}
	}
	for _, name := range b.order {
		b.times[name].print(name)
	}
	return nil
}

// A pair holds the times of one step, by the driver and by bare commands.
type pair struct{ driver, floor []time.Duration }

func (p *pair) print(name string) {
	own, floor := median(p.driver), median(p.floor)
	if floor == 0 {
		fmt.Printf(rowFormat, name, fmt.Sprintf(milliFloat, milliseconds(own)), "", "")
		return
	}
	fmt.Printf(rowFormat, name, fmt.Sprintf(milliFloat, milliseconds(own)), fmt.Sprintf(milliFloat, milliseconds(floor)), fmt.Sprintf("%.2f", float64(own)/float64(floor)))
}

func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// benchInit compares init with a Go program that does nothing, on the host.
func benchInit(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	empty := filepath.Join(dir, "empty")
	defer os.Remove(empty)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", empty, "./testdata/bench/empty")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	var p pair
	for range quickRuns {
		for command, times := range map[string]*[]time.Duration{"bin/iscsi": &p.driver, empty: &p.floor} {
			begin := time.Now()
			if err := exec.CommandContext(ctx, command, "init").Run(); err != nil {
				return err
			}
			*times = append(*times, time.Since(begin))
		}
	}
	p.print("init; floor: a Go program that does nothing")
	return nil
}

// bench leads one volume through its life again and again, in turn by the driver and by
// bare commands.
type bench struct {
	control, node *lab.Machine
	volume        lab.Volume
	device        string
	attachment    driver.Attachment
	times         map[string]*pair
	order         []string
}

func (b *bench) prepare(ctx context.Context) error {
	if result, err := b.node.Run(ctx, lab.PluginDir+"/iscsi", "register", "node-a"); err != nil || result.Exit != 0 {
		return fmt.Errorf("register node-a: %w %s", err, result.Stderr)
	}
	attached, err := b.call(ctx, b.control, "attach", b.volume.Request(), "node-a")
	if err != nil {
		return err
	}
	b.device = attached.Reply.Device
	b.attachment, err = driver.ParseAttachment(b.device)
	return err
}

func (b *bench) round(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.controlRound, b.driverRound, b.floorRound} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// controlRound times the calls of the control plane, which have no shell counterpart.
func (b *bench) controlRound(ctx context.Context) error {
	for _, step := range []struct {
		name string
		args []string
	}{
		{"detach", []string{"detach", b.volume.Name, "node-a"}},
		{"attach, volume exists", []string{"attach", b.volume.Request(), "node-a"}},
		{"attach, repeated", []string{"attach", b.volume.Request(), "node-a"}},
	} {
		if err := b.timeDriver(ctx, step.name, b.control, step.args...); err != nil {
			return err
		}
	}
	return nil
}

const (
	stepWait    = "waitforattach, two portals"
	stepMount   = "mountdevice, formatted"
	stepBind    = "mount (bind)"
	stepUnbind  = "unmount"
	stepUnmount = "unmountdevice, two portals"
)

func (b *bench) driverRound(ctx context.Context) error {
	waited, err := b.call(ctx, b.node, "waitforattach", b.device, b.volume.Request())
	if err != nil {
		return err
	}
	b.add(stepWait).driver = append(b.add(stepWait).driver, waited.Took)
	pod := b.volume.PodPath("bench")
	for _, step := range []struct {
		name string
		args []string
	}{
		{stepMount, []string{"mountdevice", b.volume.GlobalPath(), waited.Reply.Device, b.volume.Request()}},
		{stepBind, []string{"mount", pod, b.volume.Request()}},
		{"waitforattach, repeated", []string{"waitforattach", b.device, b.volume.Request()}},
		{"mountdevice, repeated", []string{"mountdevice", b.volume.GlobalPath(), waited.Reply.Device, b.volume.Request()}},
		{"mount, repeated", []string{"mount", pod, b.volume.Request()}},
		{stepUnbind, []string{"unmount", pod}},
		{stepUnmount, []string{"unmountdevice", b.volume.GlobalPath()}},
	} {
		if err := b.timeDriver(ctx, step.name, b.node, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// floorRound is what a person would type. Both portals are served at the same time, as
// the driver does.
func (b *bench) floorRound(ctx context.Context) error {
	global, pod := b.volume.GlobalPath(), b.volume.PodPath("bench")
	environment := fmt.Sprintf("IQN=%s PORTALS='%s %s' GLOBAL=%s POD=%s\n", b.attachment.Target.IQN,
		b.attachment.Target.Portals[0], b.attachment.Target.Portals[1], global, pod)
	// Both portals' disks, because waitforattach joins both, too.
	const disk = `disk() { set -- /sys/class/iscsi_session/session*/device/target*/*:0/block/*; [ -e "$2" ] && DISK=/dev/${1##*/} && [ -b "$DISK" ] && [ -b "/dev/${2##*/}" ]; }
`
	for _, step := range []struct{ name, script string }{
		{stepWait, disk + `
for p in $PORTALS; do {
	iscsiadm -m node -o new -T $IQN -p $p
	iscsiadm -m node -o update -T $IQN -p $p -n node.startup -v manual -n node.session.initial_login_retry_max -v 2
	iscsiadm -m node -T $IQN -p $p --login
} & done; wait
until disk; do sleep 0.01; done`},
		{stepMount, disk + `disk; mkdir -p $GLOBAL; mount -t xfs -o nouuid $DISK $GLOBAL`},
		{stepBind, `mkdir -p $POD; mount --bind $GLOBAL $POD`},
		{stepUnbind, `umount $POD`},
		{stepUnmount, `umount $GLOBAL
for d in /sys/class/iscsi_session/session*/device/target*/*:0/delete; do echo 1 >$d; done
for p in $PORTALS; do {
	iscsiadm -m node -T $IQN -p $p --logout
	iscsiadm -m node -o delete -T $IQN -p $p
} & done; wait`},
	} {
		begin := time.Now()
		result, err := b.node.Shell(ctx, environment+step.script)
		took := time.Since(begin)
		if err != nil || result.Exit != 0 {
			return fmt.Errorf("floor of %s: %w: exit status %d: %s", step.name, err, result.Exit, result.Stderr)
		}
		b.add(step.name).floor = append(b.add(step.name).floor, took)
	}
	return nil
}

func (b *bench) timeDriver(ctx context.Context, name string, m *lab.Machine, args ...string) error {
	call, err := b.call(ctx, m, args...)
	if err == nil {
		b.add(name).driver = append(b.add(name).driver, call.Took)
	}
	return err
}

func (b *bench) call(ctx context.Context, m *lab.Machine, args ...string) (lab.Call, error) {
	call, err := m.Call(ctx, args...)
	if err == nil && call.Reply.Status != driver.Success {
		err = fmt.Errorf("%s: %s", args[0], call.Reply.Message)
	}
	return call, err
}

func (b *bench) add(name string) *pair {
	if b.times[name] == nil {
		b.times[name] = &pair{}
	}
	if !slices.Contains(b.order, name) {
		b.order = append(b.order, name)
	}
	return b.times[name]
}
