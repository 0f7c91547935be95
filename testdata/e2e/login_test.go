package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/testdata/lab"
)

// stepper does single steps of package iscsi on a node: see initiator/main.go.
type stepper struct {
	t      *testing.T
	node   *lab.Machine
	device string // string that attach answered
	chap   string
}

type stepOutcome struct {
	Device             iscsi.Device
	LoggedIn           bool
	Programs           int
	Error              string
	NoSession, Refused bool
}

const stepProgram = "/opt/test/initiator"

// buildStepper returns the program's path.
func buildStepper(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "initiator")
	build := exec.Command("go", "build", "-o", binary, "./initiator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	return binary
}

func newStepper(t *testing.T, node *lab.Machine, binary string) stepper {
	t.Helper()
	require.NoError(t, node.Put(t.Context(), binary, stepProgram, 0o755))
	return stepper{t: t, node: node}
}

func (s stepper) do(step string, flags ...string) stepOutcome {
	s.t.Helper()
	args := append([]string{stepProgram, "-chap", s.chap}, append(flags, step, s.device)...)
	result, err := s.node.Run(s.t.Context(), args...)
	require.NoError(s.t, err)
	require.Zero(s.t, result.Exit, "%s: %s", step, result.Stderr)
	var done stepOutcome
	require.NoError(s.t, json.Unmarshal(result.Stdout, &done), "%s: %s", step, result.Stdout)
	return done
}

// succeeds does a step that takes so many programs.
func (s stepper) succeeds(step string, programs int) stepOutcome {
	s.t.Helper()
	done := s.do(step)
	require.Empty(s.t, done.Error, step)
	require.Equal(s.t, programs, done.Programs, "programs of %s", step)
	return done
}

// iqn is the target's.
func (s stepper) iqn() string { return strings.Split(s.device, "/")[3] }

// noDisk wants sessions with the target and nothing behind them, when udev has done all that it was told.
func (s stepper) noDisk(sessions int) {
	s.t.Helper()
	require.Equal(s.t, fmt.Sprint(sessions), shell(s.t, s.node, fmt.Sprintf(
		`udevadm settle; grep -lx %s /sys/class/iscsi_session/*/targetname | wc -l`, s.iqn())))
	require.Empty(s.t, shell(s.t, s.node, `ls -d /sys/class/iscsi_session/*/device/target* /sys/block/sd* /sys/block/dm-* 2>/dev/null || :`))
}

// onArray counts the node's sessions, as the target itself sees them.
func (s stepper) onArray() string {
	s.t.Helper()
	return shell(s.t, control, fmt.Sprintf("cat /sys/kernel/config/target/iscsi/%s/tpgt_*/acls/%s/info | grep -c SESS_STATE_LOGGED_IN || :", s.iqn(), s.node.InitiatorName()))
}

// lost waits until no session with the target is live.
func (s stepper) lost() {
	s.t.Helper()
	await(s.t, s.node, fmt.Sprintf("! grep -lx %s /sys/class/iscsi_session/*/targetname | sed s,targetname,state, | xargs grep -q LOGGED_IN", s.iqn()))
}

// A login brings sessions and no disk, a scan brings the disk, and neither a scan nor what follows it logs in again when the
// array has ended the sessions.
func TestLoginBringsNoDisk(t *testing.T) {
	binary := buildStepper(t)
	chap := driver.CHAPConfig{Username: "chap-user", Password: "chap-secret-1"}
	for name, test := range map[string]struct {
		portals   int
		chap      bool
		multipath bool
	}{
		"one portal":                {portals: 1},
		"two portals":               {portals: 2},
		"one portal and CHAP":       {portals: 1, chap: true},
		"two portals and CHAP":      {portals: 2, chap: true},
		"one portal and multipath":  {portals: 1, multipath: true},
		"two portals and multipath": {portals: 2, multipath: true},
	} {
		t.Run(name, func(t *testing.T) {
			volume := newVolume(t)
			s := newStepper(t, nodeA, binary)
			if test.chap {
				configure(t, func(c *driver.Config) { c.CHAP = chap }, control)
				s.chap = chap.Username + ":" + chap.Password
			}
			if test.multipath {
				startMultipathd(t, nodeA)
			}
			admit := func() {
				s.device = call(t, control, "attach", volume.Request(), "node-a").Reply.Device
				if test.portals == 1 {
					all := strings.Split(s.device, "/")[2]
					first, _, _ := strings.Cut(all, ",")
					s.device = strings.Replace(s.device, all, first, 1)
				}
			}
			drop := func() {
				call(t, control, "detach", volume.Name, "node-a")
				s.lost()
			}

			admit()
			require.False(t, s.succeeds("loggedin", 0).LoggedIn)
			s.succeeds("login", 3*test.portals)
			s.noDisk(test.portals)
			require.Equal(t, fmt.Sprint(test.portals), s.onArray(), "sessions that the array sees")
			s.succeeds("login", 0)
			s.noDisk(test.portals)
			require.True(t, s.succeeds("loggedin", 0).LoggedIn)

			// The grant is taken away before the scan.
			drop()
			require.False(t, s.succeeds("loggedin", 0).LoggedIn)
			failed := s.do("scan")
			require.True(t, failed.NoSession, failed.Error)
			require.Zero(t, failed.Programs)
			s.noDisk(test.portals)
			require.Empty(t, s.do("detach").Error)
			clean(t, nodeA)
			failed = s.do("login")
			require.True(t, failed.Refused, failed.Error)
			clean(t, nodeA)

			// And after it.
			admit()
			s.succeeds("login", 3*test.portals)
			device := s.succeeds("scan", 0).Device
			require.Len(t, device.Paths, test.portals)
			require.Equal(t, test.multipath, strings.HasPrefix(device.Path, "/dev/dm-"), device.Path)
			require.Equal(t, device, s.succeeds("scan", 0).Device)
			require.Equal(t, device, s.succeeds("attach", 0).Device)
			drop()
			require.False(t, s.succeeds("loggedin", 0).LoggedIn)
			failed = s.do("scan")
			require.True(t, failed.NoSession, failed.Error)
			require.Zero(t, failed.Programs)
			require.Empty(t, s.do("detach").Error)
			clean(t, nodeA)
		})
	}
}

// A login may be killed after each of its programs: the next one goes on from there, and a detach leaves nothing.
func TestLoginIsKilled(t *testing.T) {
	volume := newVolume(t)
	s := newStepper(t, nodeA, buildStepper(t))
	s.device = call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	for die := range 6 {
		for _, next := range []string{"scan", "detach"} {
			t.Run(fmt.Sprintf("after program %d, then %s", die+1, next), func(t *testing.T) {
				s.t = t
				result, err := nodeA.Run(t.Context(), stepProgram, "-die", fmt.Sprint(die+1), "login", s.device)
				require.NoError(t, err)
				require.Equal(t, 128+9, result.Exit, "%s", result.Stdout)
				if next == "scan" {
					require.Empty(t, s.do("login").Error)
					s.noDisk(2)
					require.Len(t, s.succeeds("scan", 0).Device.Paths, 2)
				}
				require.Empty(t, s.do("detach").Error)
				clean(t, nodeA)
			})
		}
	}
	call(t, control, "detach", volume.Name, "node-a")
}

// startMultipathd runs it, for all disks of the node's volumes, until the end of the test.
func startMultipathd(t *testing.T, node *lab.Machine) {
	t.Helper()
	shell(t, node, `
		printf 'defaults {\n find_multipaths no\n}\nblacklist {\n devnode "^vd"\n}\n' >/etc/multipath.conf
		modprobe -a dm_multipath dm_service_time dm_round_robin
		multipathd`)
	t.Cleanup(func() {
		_, err := node.Shell(context.Background(), "kill $(pidof multipathd); while pidof multipathd >/dev/null; do sleep 0.1; done; rm /etc/multipath.conf")
		require.NoError(t, err)
	})
	await(t, node, "multipathd show status >/dev/null 2>&1")
}
