package dateratest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// host is the initiator's side.
type host struct {
	t   *testing.T
	iqn string
	lun int
}

func ownIQN(t *testing.T) string {
	text, err := os.ReadFile("/etc/iscsi/initiatorname.iscsi")
	require.NoError(t, err)
	_, iqn, found := strings.Cut(strings.TrimSpace(string(text)), "InitiatorName=")
	require.True(t, found)
	return iqn
}

func (h *host) try(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

func (h *host) run(program string, args ...string) {
	h.t.Helper()
	out, err := h.try(program, args...)
	require.NoError(h.t, err, "%s %v: %s", program, args, out)
}

// record makes the node records for both portals.
func (h *host) record(iqn string) {
	h.t.Helper()
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		h.run("iscsiadm", "-m", "node", "-o", "new", "-T", iqn, "-p", ip+":3260")
	}
	h.set(iqn, "node.session.initial_login_retry_max", "0")
	h.set(iqn, "node.session.timeo.replacement_timeout", "3")
}

func (h *host) set(iqn, name, value string) {
	h.t.Helper()
	h.run("iscsiadm", "-m", "node", "-T", iqn, "-o", "update", "-n", name, "-v", value)
}

func (h *host) login(iqn, ip string) {
	h.t.Helper()
	h.run("iscsiadm", "-m", "node", "-T", iqn, "-p", ip+":3260", "--login")
}

func (h *host) refused(iqn, ip string) {
	h.t.Helper()
	out, err := h.try("iscsiadm", "-m", "node", "-T", iqn, "-p", ip+":3260", "--login")
	require.Error(h.t, err, "login has to be refused: %s", out)
	require.Regexp(h.t, "error \\((24|19) ", out, "refused by the target, not for another reason: 24 by LIO, 19 by tgtd")
}

func (h *host) logout(iqn string) {
	h.t.Helper()
	h.run("iscsiadm", "-m", "node", "-T", iqn, "--logout")
}

// forget ends whatever there is.
func (h *host) forget(iqn string) {
	_, _ = h.try("iscsiadm", "-m", "node", "-T", iqn, "--logout")
	_, _ = h.try("iscsiadm", "-m", "node", "-T", iqn, "-o", "delete")
}

func (h *host) rescan(iqn string) {
	h.t.Helper()
	h.run("iscsiadm", "-m", "node", "-T", iqn, "-R")
}

func sessions(iqn string) []string {
	var found []string
	all, _ := filepath.Glob("/sys/class/iscsi_session/session*")
	for _, s := range all {
		if name, err := os.ReadFile(s + "/targetname"); err == nil && strings.TrimSpace(string(name)) == iqn {
			found = append(found, s)
		}
	}
	return found
}

// disks waits for the disks of a target, one for each session.
func (h *host) disks(iqn string, count int) []string {
	h.t.Helper()
	var disks []string
	h.eventually("disks", func() bool {
		disks = nil
		for _, s := range sessions(iqn) {
			found, _ := filepath.Glob(fmt.Sprintf("%s/device/target*/*:*:*:%d/block/*", s, h.lun))
			for _, f := range found {
				disk, err := os.Open("/dev/" + filepath.Base(f)) // in sysfs a little earlier than it can be opened
				if err != nil {
					return false
				}
				_ = disk.Close()
				disks = append(disks, filepath.Base(f))
			}
		}
		return len(disks) == count
	})
	return disks
}

// states are those of the sessions, by portal.
func (h *host) states(iqn string) map[string]string {
	out := map[string]string{}
	for _, s := range sessions(iqn) {
		state, _ := os.ReadFile(s + "/state")
		found, _ := filepath.Glob(s + "/device/connection*/iscsi_connection/connection*/persistent_address")
		for _, f := range found {
			ip, _ := os.ReadFile(f)
			out[strings.TrimSpace(string(ip))] = strings.TrimSpace(string(state))
		}
	}
	return out
}

func (h *host) eventually(what string, condition func() bool) {
	h.t.Helper()
	require.Eventually(h.t, condition, 20*time.Second, 20*time.Millisecond, what)
}

func attribute(t *testing.T, disk, name string) string {
	t.Helper()
	text, err := os.ReadFile("/sys/block/" + disk + "/" + name)
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

func sizeOf(t *testing.T, disk string) int64 {
	t.Helper()
	var sectors int64
	_, err := fmt.Sscan(attribute(t, disk, "size"), &sectors)
	require.NoError(t, err)
	return sectors * 512
}

func (h *host) write(disk string, offset int64, length int) []byte {
	h.t.Helper()
	content := make([]byte, length)
	_, err := rand.Read(content)
	require.NoError(h.t, err)
	require.NoError(h.t, h.tryWrite(disk, offset, content))
	return content
}

func (h *host) tryWrite(disk string, offset int64, content []byte) error {
	f, err := os.OpenFile("/dev/"+disk, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(content, offset)
	return err
}

// writeOn writes the beginning of a disk over and over, until it cannot any more.
func (h *host) writeOn(disk string) <-chan error {
	failed, first := make(chan error, 1), make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			if err := h.tryWrite(disk, 0, bytes.Repeat([]byte{byte(n)}, 1<<18)); err != nil {
				failed <- err
				return
			}
			if n == 0 {
				close(first)
			}
		}
	}()
	<-first
	return failed
}

func (h *host) read(disk string, offset int64, length int) []byte {
	h.t.Helper()
	f, err := os.Open("/dev/" + disk)
	require.NoError(h.t, err)
	defer f.Close()
	require.NoError(h.t, unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0))
	content := make([]byte, length)
	_, err = f.ReadAt(content, offset)
	require.NoError(h.t, err)
	return content
}
