package iscsi

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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

// grow makes a LUN larger while it is in use.
func grow(t *testing.T, tid int, size string) {
	shell(t, fmt.Sprintf("truncate -s %s /tmp/real-%d-1", size, tid))
	tgt(t, "--op update --mode logicalunit --tid %d --lun 1 --params online=0,path=/tmp/real-%[1]d-1", tid)
}

func tgtdSignal(t *testing.T, signal string) {
	shell(t, "kill -"+signal+" $(pidof tgtd)")
}
