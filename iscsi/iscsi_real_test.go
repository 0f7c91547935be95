package iscsi

import (
	"context"
	"fmt"
	"os"
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
