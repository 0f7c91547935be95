package iscsi

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
