package iscsi

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReal works with the kernel's initiator, iscsid, iscsiadm, multipathd and tgtd, as root, on a machine that has
// nothing else to do: ISCSI_REAL=1. A static test binary (CGO_ENABLED=0 go test -c) does it in a virtual machine.
func TestReal(t *testing.T) {
	if os.Getenv("ISCSI_REAL") == "" {
		t.Skip("set ISCSI_REAL=1 on a throw-away machine with iscsid and tgtd")
	}
	shell(t, "mkdir -p /run/tgtd; pidof tgtd || { tgtd; }; for a in 10.99.0.1 10.99.0.2; do ip addr add $a/32 dev lo; done 2>/dev/null; true")
	shell(t, "for n in $(seq 100); do tgtadm --op show --mode sys && exit 0; sleep 0.1; done; exit 1")
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"attach, detach, again", realLife},
		{"two portals", realTwoPortals},
		{"dead portals", realDeadPortals},
		{"CHAP", realCHAP},
		{"access list", realAccessList},
		{"growing", realGrowth},
		{"stale disk", realStale},
		{"shared session", realShared},
		{"other volumes' LUNs", realOtherLUNs},
		{"mounted", realMounted},
		{"damaged records", realDamage},
		{"cancelled in the login", realCancel},
		{"lost session", realLost},
		{"outdated session", realOutdated},
		{"hung target", realHung},
		{"at the same time", realTogether},
		{"multipath", realMultipath},
	} {
		t.Run(test.name, test.run)
	}
}

const realPrefix = "iqn.2026-11.test.real"

// realRunner starts programs and notes them.
type realRunner struct {
	mu   sync.Mutex
	done []string
}

func (r *realRunner) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	r.mu.Lock()
	r.done = append(r.done, program+" "+strings.Join(args, " "))
	r.mu.Unlock()
	var output bytes.Buffer
	command := exec.Command(program, args...)
	command.Stdout, command.Stderr = &output, &output
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-ended:
		return output.Bytes(), err
	case <-ctx.Done():
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		<-ended
		return output.Bytes(), ctx.Err()
	}
}

// programs gives those started since the last call.
func (r *realRunner) programs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.done
	r.done = nil
	return done
}

func shell(t *testing.T, command string) string {
	t.Helper()
	output, err := exec.Command("/bin/bash", "-c", command).CombinedOutput()
	require.NoErrorf(t, err, "%s\n%s", command, output)
	return string(output)
}

var realTargets = 100 // tests with real targets run one after the other

// realTarget makes a target with one LUN of 64 MiB that everybody may use, and removes it with all its sessions.
func realTarget(t *testing.T, portals ...Portal) (target Target, tid int) {
	t.Helper()
	realTargets++
	tid = realTargets
	target = Target{
		IQN: fmt.Sprintf("%s:vol%d", realPrefix, tid), LUN: 1, Portals: portals,
		Serial: fmt.Sprintf("11112222-3333-4444-5555-%012d", tid),
	}
	if len(portals) == 0 {
		target.Portals = []Portal{"127.0.0.1:3260"}
	}
	tgt(t, "--op new --mode target --tid %d -T %s", tid, target.IQN)
	realLUN(t, tid, 1, target.Serial)
	tgt(t, "--op bind --mode target --tid %d -I ALL", tid)
	t.Cleanup(func() {
		shell(t, fmt.Sprintf(`for s in /sys/class/iscsi_session/*; do
			[ "$(cat $s/targetname 2>/dev/null)" = %s ] && iscsiadm -m session -r ${s##*session} -u
			done; iscsiadm -m node -T %[1]s -o delete; tgtadm --lld iscsi --op delete --force --mode target --tid %d; rm -f /tmp/real-%[2]d-*; true`, target.IQN, tid))
	})
	return target, tid
}

func realLUN(t *testing.T, tid, lun int, serial string) {
	t.Helper()
	shell(t, fmt.Sprintf("truncate -s 64M /tmp/real-%d-%d", tid, lun))
	tgt(t, "--op new --mode logicalunit --tid %d --lun %d -b /tmp/real-%[1]d-%[2]d", tid, lun)
	tgt(t, "--op update --mode logicalunit --tid %d --lun %d --params scsi_sn=%s", tid, lun, serial)
}

func tgt(t *testing.T, format string, args ...any) {
	t.Helper()
	shell(t, "tgtadm --lld iscsi "+fmt.Sprintf(format, args...))
}

func realInitiator(t *testing.T, change func(*Options)) (*Initiator, *realRunner) {
	t.Helper()
	options := Options{LockDir: t.TempDir()}
	if change != nil {
		change(&options)
	}
	runner := &realRunner{}
	return New(runner, options), runner
}

func realContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// nothingLeft demands that no session, disk or record of the target is here.
func nothingLeft(t *testing.T, i *Initiator, target Target) {
	t.Helper()
	sessions, err := i.sessions(target.IQN)
	require.NoError(t, err)
	require.Empty(t, sessions, "sessions left")
	require.Empty(t, i.records(target.IQN), "records left")
}

func realLife(t *testing.T) {
	target, _ := realTarget(t)
	i, runner := realInitiator(t, nil)
	for round := range 2 {
		began := time.Now()
		device, err := i.Attach(realContext(t), target, CHAP{})
		require.NoError(t, err)
		t.Logf("round %d: attached in %s as %s", round, time.Since(began), device.Path)
		require.Len(t, runner.programs(), 3, "programs of the first attach")
		require.EqualValues(t, 64<<20, device.Bytes)
		require.Equal(t, []string{device.Path}, device.Paths)
		require.Equal(t, target, device.Target)

		began = time.Now()
		again, err := i.Attach(realContext(t), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, device, again)
		identified, err := i.Identify(device.Path)
		require.NoError(t, err)
		require.Equal(t, device, identified)
		t.Logf("attached again and identified in %s", time.Since(began))
		require.Empty(t, runner.programs(), "programs of calls that find their work done")

		began = time.Now()
		require.NoError(t, i.Detach(realContext(t), target))
		t.Logf("detached in %s", time.Since(began))
		require.Len(t, runner.programs(), 2, "programs of the detach")
		nothingLeft(t, i, target)
		require.NoFileExists(t, device.Path)
		require.NoError(t, i.Detach(realContext(t), target))
		require.Empty(t, runner.programs(), "programs of a detach that finds its work done")
	}
	_, found, err := i.Find(realContext(t), target)
	require.NoError(t, err)
	require.False(t, found)
	_, err = i.Identify("/dev/loop0")
	require.ErrorIs(t, err, ErrNotISCSI)
}

func realTwoPortals(t *testing.T) {
	target, _ := realTarget(t, "10.99.0.1:3260", "10.99.0.2:3260")
	i, runner := realInitiator(t, nil)
	device, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, runner.programs(), 6)
	require.Len(t, device.Paths, 2)
	require.ElementsMatch(t, target.Portals, device.Target.Portals)
	require.NoError(t, i.Detach(realContext(t), Target{IQN: target.IQN, LUN: target.LUN, Serial: target.Serial}))
	require.Len(t, runner.programs(), 3, "two logouts and one delete")
	nothingLeft(t, i, target)
}

func realDeadPortals(t *testing.T) {
	shell(t, "ip route add 203.0.113.0/24 dev lo 2>/dev/null; ip route replace blackhole 198.51.100.0/24; true")
	target, _ := realTarget(t, "127.0.0.1:3999", "127.0.0.1:3260", "203.0.113.1:3260")
	i, runner := realInitiator(t, nil)
	for _, programs := range []int{3, 0} {
		began := time.Now()
		device, err := i.Attach(realContext(t), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, []Portal{"127.0.0.1:3260"}, device.Target.Portals)
		require.Len(t, runner.programs(), programs)
		t.Logf("attached with two dead portals in %s", time.Since(began))
		require.Less(t, time.Since(began), 5*time.Second)
	}
	require.NoError(t, i.Detach(realContext(t), target))
	nothingLeft(t, i, target)

	runner.programs()
	target.Portals = []Portal{"127.0.0.1:3999", "127.0.0.1:3998"}
	_, err := i.Attach(realContext(t), target, CHAP{})
	t.Log(err)
	require.ErrorIs(t, err, ErrUnreachable)
	require.Empty(t, runner.programs())
}

func realCHAP(t *testing.T) {
	target, tid := realTarget(t)
	tgt(t, "--op new --mode account --user user%d --password secretsecret1", tid)
	tgt(t, "--op bind --mode account --tid %d --user user%[1]d", tid)
	tgt(t, "--op new --mode account --user array%d --password secretsecret2", tid)
	tgt(t, "--op bind --mode account --tid %d --user array%[1]d --outgoing", tid)
	i, runner := realInitiator(t, nil)
	user, array := fmt.Sprintf("user%d", tid), fmt.Sprintf("array%d", tid)
	for _, wrong := range []CHAP{
		{},
		{Username: user, Password: "not the secret"},
		{Username: user, Password: "secretsecret1", UsernameIn: array, PasswordIn: "not the secret"},
	} {
		_, err := i.Attach(realContext(t), target, wrong)
		t.Log(err)
		require.ErrorIs(t, err, ErrRefused)
		require.NotContains(t, err.Error(), "secretsecret")
		require.NotContains(t, err.Error(), "not the secret")
		require.Len(t, runner.programs(), 4, "new, update, login, delete")
		nothingLeft(t, i, target)
	}
	for _, right := range []CHAP{
		{Username: user, Password: "secretsecret1"},
		{Username: user, Password: "secretsecret1", UsernameIn: array, PasswordIn: "secretsecret2"},
	} {
		_, err := i.Attach(realContext(t), target, right)
		require.NoError(t, err)
		require.NoError(t, i.Detach(realContext(t), target))
	}
}

func realAccessList(t *testing.T) {
	target, tid := realTarget(t)
	tgt(t, "--op unbind --mode target --tid %d -I ALL", tid)
	tgt(t, "--op bind --mode target --tid %d --initiator-name iqn.1993-08.org.debian:01:another", tid)
	i, runner := realInitiator(t, nil)
	began := time.Now()
	_, err := i.Attach(realContext(t), target, CHAP{})
	t.Logf("%s: %v", time.Since(began), err)
	require.ErrorIs(t, err, ErrRefused)
	require.Len(t, runner.programs(), 4, "new, update, login, delete")
	nothingLeft(t, i, target)

	name, err := i.Name()
	require.NoError(t, err)
	tgt(t, "--op bind --mode target --tid %d --initiator-name %s", tid, name)
	_, err = i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	require.NoError(t, i.Detach(realContext(t), target))
}

// grow makes a LUN larger while it is in use.
func grow(t *testing.T, tid int, size string) {
	shell(t, fmt.Sprintf("truncate -s %s /tmp/real-%d-1", size, tid))
	tgt(t, "--op update --mode logicalunit --tid %d --lun 1 --params online=0,path=/tmp/real-%[1]d-1", tid)
}

func realGrowth(t *testing.T) {
	target, tid := realTarget(t, "10.99.0.1:3260", "10.99.0.2:3260")
	i, runner := realInitiator(t, nil)
	device, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	runner.programs()
	late := make(chan struct{})
	go func() { // the array is late
		defer close(late)
		time.Sleep(300 * time.Millisecond)
		grow(t, tid, "96M")
	}()
	began := time.Now()
	bytes, err := i.Resize(realContext(t), device, 96<<20)
	<-late
	require.NoError(t, err)
	t.Logf("grown in %s", time.Since(began))
	require.EqualValues(t, 96<<20, bytes)
	require.Empty(t, runner.programs())

	short, cancel := context.WithTimeout(realContext(t), 500*time.Millisecond)
	defer cancel()
	_, err = i.Resize(short, device, 1<<40)
	t.Log(err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, i.Detach(realContext(t), target))
}

func realStale(t *testing.T) {
	target, tid := realTarget(t)
	i, runner := realInitiator(t, nil)
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	runner.programs()

	// The LUN becomes another volume's; the kernel has the old disk.
	tgt(t, "--op update --mode logicalunit --tid %d --lun 1 --params scsi_sn=new-volume", tid)
	now := target
	now.Serial = "new-volume"
	_, found, err := i.Find(realContext(t), now)
	require.NoError(t, err)
	require.False(t, found)
	device, err := i.Attach(realContext(t), now, CHAP{})
	require.NoError(t, err)
	require.Equal(t, "new-volume", device.Target.Serial)
	require.Empty(t, runner.programs())

	_, err = i.Attach(realContext(t), target, CHAP{})
	t.Log(err)
	require.ErrorIs(t, err, ErrWrongSerial)
	require.ErrorContains(t, err, target.Serial)
	require.ErrorContains(t, err, "new-volume")
	require.NoError(t, i.Detach(realContext(t), now))
	nothingLeft(t, i, target)
}

func realShared(t *testing.T) {
	one, tid := realTarget(t)
	realLUN(t, tid, 2, "second-lun")
	two := one
	two.LUN, two.Serial = 2, "second-lun"
	i, runner := realInitiator(t, nil)
	_, err := i.Attach(realContext(t), one, CHAP{})
	require.NoError(t, err)
	require.Len(t, runner.programs(), 3)
	_, err = i.Attach(realContext(t), two, CHAP{})
	require.NoError(t, err)
	require.Empty(t, runner.programs(), "the session is there")

	require.NoError(t, i.Detach(realContext(t), one))
	require.Empty(t, runner.programs(), "the session serves another LUN")
	_, found, err := i.Find(realContext(t), one)
	require.NoError(t, err)
	require.False(t, found)
	_, found, err = i.Find(realContext(t), two)
	require.NoError(t, err)
	require.True(t, found)

	require.NoError(t, i.Detach(realContext(t), two))
	require.Len(t, runner.programs(), 2)
	nothingLeft(t, i, one)
}

func realMounted(t *testing.T) {
	target, _ := realTarget(t)
	i, _ := realInitiator(t, nil)
	device, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	point := t.TempDir()
	shell(t, "modprobe ext4 2>/dev/null; mke2fs -q -t ext4 "+device.Path+" && mount "+device.Path+" "+point)
	err = i.Detach(realContext(t), target)
	t.Log(err)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, point)

	// Mounted where this process does not see it.
	hidden := exec.Command("unshare", "-m", "--propagation", "private", "sleep", "60")
	require.NoError(t, hidden.Start())
	time.Sleep(500 * time.Millisecond)
	shell(t, "umount "+point)
	err = i.Detach(realContext(t), target)
	t.Log(err)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, hidden.Process.Kill())
	_ = hidden.Wait()
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, i.Detach(realContext(t), target))
	nothingLeft(t, i, target)
}

func realDamage(t *testing.T) {
	target, _ := realTarget(t)
	i, runner := realInitiator(t, nil)
	shell(t, fmt.Sprintf("mkdir -p /etc/iscsi/nodes/%[1]s /run/lock/iscsi; : >/etc/iscsi/nodes/%[1]s/127.0.0.1,3260; touch /run/lock/iscsi/lock; ln /run/lock/iscsi/lock /run/lock/iscsi/lock.write; sleep 0.1", target.IQN))
	began := time.Now()
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	require.Len(t, runner.programs(), 3)
	require.Less(t, time.Since(began), 10*time.Second)

	// Without its record, a session is logged out by number.
	shell(t, "rm -r /etc/iscsi/nodes/"+target.IQN)
	require.NoError(t, i.Detach(realContext(t), target))
	programs := runner.programs()
	require.Len(t, programs, 1)
	require.Contains(t, programs[0], "-m session -r ")
	nothingLeft(t, i, target)
}

func tgtdSignal(t *testing.T, signal string) {
	shell(t, "kill -"+signal+" $(pidof tgtd)")
}

func realCancel(t *testing.T) {
	target, _ := realTarget(t)
	i, runner := realInitiator(t, func(o *Options) { o.LoginTimeout = 3 * time.Second })
	tgtdSignal(t, "STOP")
	t.Cleanup(func() { tgtdSignal(t, "CONT") })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	_, err := i.Attach(ctx, target, CHAP{})
	t.Logf("%s: %v", time.Since(began), err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 2*time.Second+undoLimit+time.Second)
	t.Log(strings.Join(runner.programs(), "\n"))

	// The half login is met by the next call, which has a target that answers.
	tgtdSignal(t, "CONT")
	began = time.Now()
	_, err = i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	t.Logf("attached after it in %s by %d programs", time.Since(began), len(runner.programs()))
	require.NoError(t, i.Detach(realContext(t), target))
	nothingLeft(t, i, target)
}

func realLost(t *testing.T) {
	target, _ := realTarget(t)
	i, runner := realInitiator(t, nil)
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	runner.programs()
	// A firewall cuts the connection, and lifts.
	shell(t, "ss -K dst 127.0.0.1 dport = 3260 || true")
	tgtdSignal(t, "STOP")
	time.Sleep(12 * time.Second) // the kernel's pings need it
	_, found, err := i.Find(realContext(t), target)
	require.NoError(t, err)
	require.False(t, found, "a lost session counts as attached")
	tgtdSignal(t, "CONT")
	began := time.Now()
	_, err = i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	t.Logf("back in %s by %d programs", time.Since(began), len(runner.programs()))

	// And lost for good: it must go, and in time.
	tgtdSignal(t, "STOP")
	t.Cleanup(func() { tgtdSignal(t, "CONT") })
	time.Sleep(12 * time.Second)
	began = time.Now()
	require.NoError(t, i.Detach(realContext(t), target))
	t.Logf("lost session detached in %s by %d programs", time.Since(began), len(runner.programs()))
	nothingLeft(t, i, target)
	tgtdSignal(t, "CONT")
}

// realOutdated is a session that its target throws out and does not take back as it is: CHAP was switched on meanwhile.
func realOutdated(t *testing.T) {
	target, tid := realTarget(t)
	i, runner := realInitiator(t, func(o *Options) { o.LoginTimeout = 3 * time.Second })
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	runner.programs()
	tgt(t, "--op new --mode account --user user%d --password secretsecret1", tid)
	tgt(t, "--op bind --mode account --tid %d --user user%[1]d", tid)
	shell(t, fmt.Sprintf(`sid=$(tgtadm --lld iscsi --op show --mode conn --tid %d | sed -n 's/^Session: //p'); tgtadm --lld iscsi --op delete --mode conn --tid %[1]d --sid $sid --cid 0`, tid))
	require.Eventually(t, func() bool {
		_, found, err := i.Find(realContext(t), target)
		return err == nil && !found
	}, 20*time.Second, 100*time.Millisecond)
	time.Sleep(3 * time.Second)
	began := time.Now()
	_, err = i.Attach(realContext(t), target, CHAP{Username: fmt.Sprintf("user%d", tid), Password: "secretsecret1"})
	require.NoError(t, err)
	t.Logf("replaced in %s:\n%s", time.Since(began), strings.Join(runner.programs(), "\n"))
	require.NoError(t, i.Detach(realContext(t), target))
	nothingLeft(t, i, target)
}

func realHung(t *testing.T) {
	target, _ := realTarget(t)
	i, _ := realInitiator(t, nil)
	_, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	tgtdSignal(t, "STOP")
	t.Cleanup(func() { tgtdSignal(t, "CONT") })
	began := time.Now()
	require.NoError(t, i.Detach(realContext(t), target))
	t.Logf("target that stopped this moment: detached in %s", time.Since(began))
	require.Less(t, time.Since(began), 60*time.Second)
	nothingLeft(t, i, target)
	tgtdSignal(t, "CONT")
}

func realTogether(t *testing.T) {
	target, _ := realTarget(t)
	runner := &realRunner{}
	options := Options{LockDir: t.TempDir()}
	var group sync.WaitGroup
	errs := make(chan error, 20)
	for range 5 {
		group.Go(func() {
			_, err := New(runner, options).Attach(realContext(t), target, CHAP{})
			errs <- err
		})
	}
	group.Wait()
	require.Len(t, runner.programs(), 3, "five calls for one target")

	var targets []Target
	for range 5 {
		another, _ := realTarget(t)
		targets = append(targets, another)
	}
	began := time.Now()
	for _, another := range targets {
		group.Go(func() {
			_, err := New(runner, options).Attach(realContext(t), another, CHAP{})
			errs <- err
		})
	}
	group.Wait()
	t.Logf("five targets attached together in %s", time.Since(began))
	require.Len(t, runner.programs(), 15)
	for _, another := range append(targets, target) {
		group.Go(func() { errs <- New(runner, options).Detach(realContext(t), another) })
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

func realMultipath(t *testing.T) {
	require.NoError(t, os.WriteFile("/etc/multipath.conf",
		[]byte("defaults {\n user_friendly_names yes\n find_multipaths no\n polling_interval 2\n}\nblacklist {\n devnode \"^vd\"\n}\n"), 0o644))
	shell(t, "mkdir -p /run/multipathd /etc/multipath; modprobe -a dm_multipath dm_service_time dm_round_robin; multipathd; for n in $(seq 50); do multipathd show status && exit 0; sleep 0.1; done; exit 1")
	t.Cleanup(func() { shell(t, "multipathd shutdown; true") })
	target, tid := realTarget(t, "10.99.0.1:3260", "10.99.0.2:3260")
	i, runner := realInitiator(t, nil)
	require.True(t, i.multipathRuns())
	began := time.Now()
	device, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	t.Logf("attached in %s as %+v", time.Since(began), device)
	require.Len(t, runner.programs(), 6)
	require.Equal(t, "/dev/dm-", strings.TrimRight(device.Path, "0123456789"))
	require.Len(t, device.Paths, 2)
	again, err := i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	require.Equal(t, device.Path, again.Path)
	require.Empty(t, runner.programs())
	shell(t, "udevadm settle")
	for _, path := range append(device.Paths, device.Path, "/dev/mapper/"+attribute(i.block(filepath.Base(device.Path)), "dm/name")) {
		identified, err := i.Identify(path)
		require.NoError(t, err)
		require.Equal(t, device, identified)
	}

	grow(t, tid, "96M")
	bytes, err := i.Resize(realContext(t), device, 96<<20)
	require.NoError(t, err)
	require.EqualValues(t, 96<<20, bytes)
	require.Len(t, runner.programs(), 1)

	point := t.TempDir()
	shell(t, "mke2fs -q -t ext4 "+device.Path+" && mount "+device.Path+" "+point)
	err = i.Detach(realContext(t), target)
	t.Log(err)
	require.ErrorIs(t, err, ErrInUse)
	require.Empty(t, runner.programs())
	shell(t, "umount "+point)
	began = time.Now()
	require.NoError(t, i.Detach(realContext(t), target))
	t.Logf("detached in %s", time.Since(began))
	require.Len(t, runner.programs(), 4, "flush, two logouts, one delete")
	nothingLeft(t, i, target)
	require.NoFileExists(t, device.Path)

	// A map may be missing: then the plain disk does, after the time that multipathd has.
	require.NoError(t, os.WriteFile("/etc/multipath.conf", []byte("blacklist {\n devnode \"^(sd|vd)\"\n}\n"), 0o644))
	shell(t, "multipathd reconfigure")
	began = time.Now()
	device, err = i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	t.Logf("blacklisted: attached in %s", time.Since(began))
	require.Contains(t, device.Path, "/dev/sd")
	began = time.Now()
	_, err = i.Attach(realContext(t), target, CHAP{})
	require.NoError(t, err)
	require.Less(t, time.Since(began), time.Second)
	require.NoError(t, i.Detach(realContext(t), target))
}
